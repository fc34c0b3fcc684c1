"""A local model as an arm: its renderer and engine answer examples in a prompt form, and it can be fine-tuned."""

from __future__ import annotations

import hashlib
import statistics
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuneworth.data.example import Example
from tuneworth.errors import InputError
from tuneworth.evaluation.forms import Form
from tuneworth.evaluation.metrics import Metric, score
from tuneworth.evaluation.metrics.pairs import preferred
from tuneworth.evaluation.prompts import conversation
from tuneworth.evaluation.records import Answer, Decoding, RawAnswer
from tuneworth.inference import Chat, Engine, Grammar, Grammars, Request
from tuneworth.models.adapters import Adapter, Model
from tuneworth.models.sources import ModelFolder
from tuneworth.models.tuning import Recipe, Tuned, saved, tune
from tuneworth.plan import Rate
from tuneworth.rendering import Messages, Renderer
from tuneworth.training import (
    Pair,
    Row,
    log_probabilities,
    pair_packs,
    row_packs,
)
from tuneworth.training.loss import row_losses
from tuneworth.training.records import Trainable

_LATENCY_ROWS, _LATENCY_SECONDS, _LEAST_LATENCY_ROWS = 12, 5.0, 5  # asked alone; after so many seconds only the least
_TIMED_STEPS, _SIDE_BY_SIDE = 8, 16  # tokens that are written to time one, in as many rows
_TIMED_TOKENS, _LEAST_TIMED = 6_000, 4  # of rows that are timed before anything starts: some ten seconds of training
_TURN_ROWS = 64  # test rows of which the loss of every turn is measured
_SURPRISE_TOKENS = 4096  # in one pass that only asks for log-probabilities
_TRIED_ANSWERS = 2_000  # of which it is tried whether a grammar allows them: 0.4 s
Quiet = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Scoring:
    """How answers of this task are asked for and scored. `labels` are those of classification and multilabel, else
    empty; `schema` is the JSON Schema of extracted objects (what constrained answers are held to)."""

    metric: Metric
    labels: tuple[str, ...]
    max_new_tokens: int
    decoding: Decoding
    kind: str = "generation"
    schema: Mapping[str, Any] | None = None

    @property
    def chooses(self) -> bool:
        """Whether an answer is one of what is known beforehand, and not as long as the model writes it."""
        return self.decoding == "scored" or (self.decoding == "constrained" and bool(self.labels))


class LocalModel:
    """Pre-trained weights in memory; at most one tuning is on them at a time."""

    def __init__(
        self, folder: ModelFolder, renderer: Renderer, model: Model, device: str, *, alone: bool = False
    ) -> None:
        """With `alone` every prompt is computed by itself and nothing is kept for the next one, so that an answer is
        the same to the last bit whatever stands beside it (LAW 35), at many times the cost."""
        self._alone = alone
        self.folder = folder
        self.renderer = renderer
        self._base = model
        self._tuned: Tuned | None = None
        self._device = device
        self._engine: tuple[Adapter | Model, Engine] | None = None
        self._grammars: Grammars | None = None

    @property
    def name(self) -> str:
        """The id of the pre-trained model."""
        return self.folder.id

    @property
    def device(self) -> str:
        """Where the weights are: `cpu`, `cuda`."""
        return self._device

    @property
    def model(self) -> Adapter | Model:
        """The model as it answers now: tuned, if a tuning is on."""
        return self._tuned.model if self._tuned else self._base

    @contextmanager
    def tuned(self, by: Recipe | Path) -> Iterator[Tuned]:
        """Tuned by a recipe (as before until it is trained) or as saved in a folder; as pre-trained afterwards."""
        self.put_on(by)
        assert self._tuned is not None
        try:
            yield self._tuned
        finally:
            self._engine = None
            self._base = self._tuned.remove()
            self._tuned = None

    def put_on(self, by: Recipe | Path) -> None:
        """Answer as tuned by `by` from now on."""
        self._engine = None
        self._tuned = saved(self._base, by) if isinstance(by, Path) else tune(self._base, by)

    def engine(self) -> Engine:
        """The engine over the model as it answers now; it keeps what it has computed until the model changes."""
        if self._engine is None or self._engine[0] is not self.model:
            self._engine = self.model, Engine(self.model, end_id=self.renderer.end_id, device=self._device)
        return self._engine[1]

    def chat(
        self, labels: Sequence[str] = (), *, scored: bool = False, schema: Mapping[str, Any] | None = None
    ) -> Chat:
        """Talk to the model as it answers now; with `labels` it answers with one of them, see Chat, with `schema` it
        writes JSON that fits it."""
        grammar = self._grammar(schema) if schema is not None else None
        return Chat(self.renderer, self.engine(), self.folder.context_tokens, labels, scored=scored, grammar=grammar)

    def answer(
        self,
        form: Form,
        examples: Sequence[Example],
        scoring: Scoring,
        on_done: Quiet = lambda rows: None,
    ) -> list[RawAnswer]:
        """Answers in order, generated greedily, or constrained to the labels; of preferences, which of the two answers
        is likelier.

        A prompt that leaves no room in the context, or that the chat template refuses, is an error of its row.
        """
        if scoring.kind == "preference":
            parts = [[example] for example in examples] if self._alone else [examples]
            return [answer for part in parts for answer in self._preferred(form, part, on_done)]
        room = self.folder.context_tokens - scoring.max_new_tokens
        asked = [self._asked(form, example, room) for example in examples]
        prompts = [ids for ids, error in asked if error is None]
        written = iter(
            self._one_at_a_time(prompts, scoring, on_done) if self._alone else self._written(prompts, scoring, on_done)
        )
        return [
            next(written) if error is None else RawAnswer("", "error", _hash(ids), len(ids), 0, 0.0, error)
            for ids, error in asked
        ]

    def _asked(self, form: Form, example: Example, room: int) -> tuple[list[int], str | None]:
        """The prompt of a row, and why it cannot be asked."""
        try:
            prompt = self.renderer.prompt(form.messages(example), example.tool_definitions)
        except InputError as error:
            return [], str(error)
        if len(prompt) > room:
            return prompt, f"the prompt has {len(prompt)} tokens, the context leaves room for {room}"
        return prompt, None

    def _one_at_a_time(self, prompts: list[list[int]], scoring: Scoring, on_done: Quiet) -> Iterator[RawAnswer]:
        for prompt in prompts:
            self.engine().forget()
            yield from self._written([prompt], scoring, on_done)

    def _written(self, prompts: list[list[int]], scoring: Scoring, on_done: Quiet) -> Iterator[RawAnswer]:
        if scoring.decoding == "scored" and scoring.labels:
            yield from self._chosen(prompts, scoring, on_done)
            return
        held = scoring.decoding == "constrained"
        choices = [self.renderer.answer_ids(label) for label in scoring.labels] if held else []
        if held and not choices and scoring.schema is not None:
            grammar = self._grammar(scoring.schema)
            held_to = [grammar.start(scoring.max_new_tokens) for _ in prompts]
            requests = [
                Request(prompt, scoring.max_new_tokens, constraint=matcher)
                for prompt, matcher in zip(prompts, held_to, strict=True)
            ]
            written = self.engine().answer(requests, on_done=on_done)
            parts = [{"closed": float(matcher.closing)} for matcher in held_to]
        else:
            parts = [{}] * len(prompts)
            written = self.engine().generate(
                prompts, max_new_tokens=scoring.max_new_tokens, choices=choices, on_done=on_done
            )
        for prompt, found, part in zip(prompts, written, parts, strict=True):
            stopped = found.finish_reason == "stop"
            yield RawAnswer(
                text=self.renderer.decode(found.ids),
                finish_reason="stop" if stopped else "length",
                prompt_hash=_hash(prompt),
                input_tokens=len(prompt),
                output_tokens=len(found.ids) + stopped,
                seconds=found.seconds,
                parts=part,
            )

    def _chosen(self, prompts: list[list[int]], scoring: Scoring, on_done: Quiet) -> Iterator[RawAnswer]:
        """The likeliest label of each prompt, and how likely it is among the labels."""
        choices = [self.renderer.answer_ids(label) for label in scoring.labels]
        for prompt, found in zip(prompts, self.engine().score(prompts, choices, on_done=on_done), strict=True):
            yield RawAnswer(
                text=scoring.labels[found.best],
                finish_reason="stop",
                prompt_hash=_hash(prompt),
                input_tokens=len(prompt),
                output_tokens=len(choices[found.best]) + 1,
                seconds=found.seconds,
                parts={"confidence": found.probabilities(len(choices))[found.best]},
            )

    def not_held(self, schema: Mapping[str, Any], answers: Sequence[str]) -> str | None:
        """Why answers cannot be held to `schema`: no grammar can be made of it, or it would forbid one of `answers`, of
        which the first 2,000 are tried."""
        try:
            grammar = self._grammar(schema)
        except InputError as error:
            return error.problems[0].what
        forbidden = (text for text in answers[:_TRIED_ANSWERS] if not grammar.allows(self.renderer.encode_text(text)))
        text = next(forbidden, None)
        return None if text is None else f"this answer could not be written then: {text:.120}"

    def _grammar(self, schema: Mapping[str, Any]) -> Grammar:
        if self._grammars is None:
            self._grammars = Grammars(self.renderer, self._base.config.vocab_size)
        return self._grammars.json_schema(schema)

    def latency(self, form: Form, examples: Sequence[Example], scoring: Scoring) -> dict[str, float]:
        """Median and 95th percentile of the seconds of single requests, one after the other.

        What they share is computed once and kept, as it is where they are served.
        """
        return self._one_by_one(form, examples, scoring)[1]

    def _one_by_one(
        self, form: Form, examples: Sequence[Example], scoring: Scoring
    ) -> tuple[list[str], dict[str, float]]:
        """Answers to the first few examples, each asked alone, and `latency`."""
        answers, seconds = [], []
        for example in examples[:_LATENCY_ROWS]:
            start = time.perf_counter()
            answers += [raw.text for raw in self.answer(form, [example], scoring)]
            seconds.append(time.perf_counter() - start)
            if sum(seconds) > _LATENCY_SECONDS and len(seconds) >= _LEAST_LATENCY_ROWS:
                break
        if not seconds:
            return [], {}
        cuts = statistics.quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else seconds * 19
        return answers, {"p50": statistics.median(seconds), "p95": cuts[18]}

    def suited(self, scoring: Scoring) -> Scoring:
        """`scoring` itself: weights in memory can be held to the labels."""
        return scoring

    def details(self, form: Form, examples: Sequence[Example], scoring: Scoring) -> dict[str, Any]:
        """The model by its hash, its latency, and the share of the same rows that it answers otherwise side by side
        (LAW 35): sums are rounded in another order there, and greedy choices may turn over."""
        alone, seconds = self._one_by_one(form, examples, scoring)
        together = [raw.text for raw in self.answer(form, examples[: len(alone)], scoring)]
        flips = sum(a != b for a, b in zip(alone, together, strict=True))
        return {
            "model": self.name,
            "model_sha256": self.folder.sha256,
            "latency_seconds": seconds,
            "flip_rate": flips / len(alone) if alone else None,
            "flip_rows": len(alone),
        }

    def usd(self, answers: Sequence[RawAnswer]) -> float | None:
        """Nothing: these answers cost machine time only."""
        return 0.0

    def learnable(
        self, form: Form, examples: Sequence[Example], kind: str, turns: str = "all"
    ) -> tuple[Sequence[Trainable], list[str]]:
        """What a training of this kind learns from, rows or pairs, and the ids of examples that are too long."""
        if kind == "preference":
            return self.preference_pairs(form, examples)
        return self.training_rows(form, examples, turns)

    def training_rows(self, form: Form, examples: Sequence[Example], turns: str = "all") -> tuple[list[Row], list[str]]:
        """Rows of token ids, and the ids of examples that do not fit the context whole (never cut, LAW 13).

        `turns` says which of a conversation's answers are learnt, `all` of those whose weight is not 0 or the `last`.
        Raises InputError, naming the row, when the chat template refuses it.
        """
        rows, too_long = [], []
        for example in examples:
            messages, places = conversation(form, example, turns)
            with _row_named(example):
                rendered = self.renderer.conversation(messages, places, example.tool_definitions)
            if max(len(each.ids) for each in rendered) > self.folder.context_tokens:
                too_long.append(example.id)
            else:
                rows += [Row(example.id, each.ids, each.trained) for each in rendered]
        return rows, too_long

    def turn_losses(self, form: Form, examples: Sequence[Example]) -> list[dict[str, float]]:
        """Of each turn of conversations (the first answer, the second, ...) the loss in nats per token of the wanted
        answers, as one sum over rows divided once; on the first rows only, since everything is read again."""
        rows: dict[str, Row] = {}
        for number, example in enumerate(examples[:_TURN_ROWS]):
            messages, places = conversation(form, example)
            for turn, place in enumerate(places, 1):
                rendered = self.renderer.training(messages[: place + 1], example.tool_definitions)
                if len(rendered.ids) <= self.folder.context_tokens:
                    name = f"{turn}/{number}"
                    rows[name] = Row(name, rendered.ids, rendered.trained)
        sums: dict[int, list[float]] = {}
        for names, values in log_probabilities(self.model, row_packs(list(rows.values()), 4096, self._device)):
            for name, value in zip(names, values, strict=True):
                turn = int(name.split("/", 1)[0])
                sums.setdefault(turn, [0.0, 0.0, 0.0])
                for place, more in enumerate((1.0, rows[name].trained_tokens, -value)):
                    sums[turn][place] += more
        return [
            {"turn": turn, "rows": int(count), "tokens": int(tokens), "nats_per_token": nats / tokens}
            for turn, (count, tokens, nats) in sorted(sums.items())
        ]

    def surprise(self, conversations: Sequence[Messages], *, with_end: bool = True) -> list[tuple[float, int]]:
        """Of each conversation's last answer: the sum of -log p of its tokens (nats) as the model answers now, and
        their number; the end token counts only `with_end`. Nothing is cut: who calls keeps to the context."""
        rows = []
        for number, messages in enumerate(conversations):
            rendered = self.renderer.training(messages)
            trained = list(rendered.trained)
            if not with_end:
                trained[len(trained) - 1 - trained[::-1].index(True)] = False
            rows.append(Row(str(number), rendered.ids, tuple(trained)))
        losses = row_losses(self.model, rows, _SURPRISE_TOKENS, self._device)
        return [(loss, row.trained_tokens) for loss, row in zip(losses, rows, strict=True)]

    def preference_pairs(self, form: Form, examples: Sequence[Example]) -> tuple[list[Pair], list[str]]:
        """Each example's answer against its rejected one; and ids of pairs too long (never cut, LAW 19).

        Raises InputError, naming the row, when it has no rejected answer or the chat template refuses it.
        """
        pairs, too_long = [], []
        for example in examples:
            with _row_named(example):
                rows = self._pair(form, example)
                if max(len(row.ids) for row in rows) > self.folder.context_tokens:
                    too_long.append(example.id)
                else:
                    pairs.append(Pair.of(*rows))
        return pairs, too_long

    def _pair(self, form: Form, example: Example) -> list[Row]:
        if example.rejected is None:
            raise InputError("the row has no rejected answer", cure="leave it out, or name the column that holds it")
        rows = []
        for answer in (example.reply, example.rejected):
            messages = [*form.messages(example), {**answer.to_openai(), "content": answer.content}]
            rendered = self.renderer.training(messages, example.tool_definitions)
            rows.append(Row(example.id, rendered.ids, rendered.trained))
        return rows

    def _preferred(self, form: Form, examples: Sequence[Example], on_done: Quiet) -> list[RawAnswer]:
        """Which answer of each pair is likelier, with the margin in nats; a pair that is too long is an error."""
        pairs, too_long = self.preference_pairs(form, examples)
        known = {pair.id: pair for pair in pairs}
        found: dict[str, RawAnswer] = {}
        start = time.perf_counter()
        # Room beside what all pairs begin with, so that many examples in the prompt are read once, not for each pair.
        room = _SURPRISE_TOKENS + _shared([pair.ids for pair in pairs])
        for names, values in log_probabilities(self.model, pair_packs(pairs, room, self._device)):
            now = time.perf_counter()
            for name, better, worse in zip(names[::2], values[::2], values[1::2], strict=True):
                found[name] = _judged(known[name], better, worse, (now - start) / (len(names) // 2))
            start = now
            on_done(len(names) // 2)
        error = f"prompt and answer do not fit the context of {self.folder.context_tokens} tokens"
        missing = dict.fromkeys(too_long, RawAnswer("", "error", "", 0, 0, 0.0, error))
        return [(found | missing)[example.id] for example in examples]

    @property
    def tuning(self) -> Tuned:
        """The tuning that is on the model."""
        if self._tuned is None:
            raise ValueError("put a tuning on first")
        return self._tuned

    def scored(
        self,
        form: Form,
        examples: Sequence[Example],
        scoring: Scoring,
        on_done: Quiet = lambda rows: None,
    ) -> list[Answer]:
        """Answer and score."""
        raw = self.answer(form, examples, scoring, on_done)
        return score(examples, raw, scoring.metric)

    def answer_rate(
        self, form: Form, examples: Sequence[Example], scoring: Scoring, tokens: float | None = None
    ) -> Rate:
        """Measured wall seconds of answering: once for the shared beginning, and for each row.

        An answer that is written is timed by its parts, reading and a token more, since a token costs a row less the
        more rows are written side by side. It is as long as `tokens`, or as the first few answers are. Reading is timed
        with rows that were not asked before: of those that were, the engine keeps what it computed.
        """
        room = self.folder.context_tokens
        whole = scoring.chooses or scoring.kind == "preference"
        prompts = [self._asked(form, example, room)[0] for example in examples]
        count = timed_rows(prompts, _TIMED_TOKENS if whole else _TIMED_TOKENS // 4)  # read up to four times
        if not whole:
            count = max(1, min(_SIDE_BY_SIDE, count, len(examples) // 2))
        few = examples[: max(1, count // 4)]
        asked = len(few) if whole else count
        rows = examples[asked : count if whole else 2 * count] or few

        def timed(rows: Sequence[Example], most: int) -> tuple[float, float]:
            start = time.perf_counter()
            raw = self.answer(form, rows, replace(scoring, max_new_tokens=min(most, scoring.max_new_tokens)))
            return time.perf_counter() - start, sum(answer.output_tokens for answer in raw) / len(rows)

        first, written = timed(few, scoring.max_new_tokens if whole or tokens is None else 1)
        if whole:
            a_row = timed(rows, scoring.max_new_tokens)[0] / len(rows)
        else:
            written = written if tokens is None else tokens
            timed(examples[:asked], 1)  # by then the shared beginning is kept, and kernels are made for so many rows
            reading, (again, _), (more, length) = timed(rows, 1)[0], timed(rows, 1), timed(rows, 1 + _TIMED_STEPS)
            a_token = max(0.0, more - again) / max(1.0, length - 1)
            a_row = (reading + (max(1.0, written) - 1) * a_token) / len(rows)
        # What the first few took beside reading and writing themselves.
        return Rate(once=max(0.0, first - len(few) * a_row), a_row=a_row)


def _shared(sequences: Sequence[Sequence[int]]) -> int:
    """Tokens with which all sequences begin."""
    ordered = sorted(map(tuple, sequences)) or [()]
    first, last = ordered[0], ordered[-1]
    return next((n for n, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))


def timed_rows(sequences: Sequence[Sequence[int]], most_tokens: int = _TIMED_TOKENS) -> int:
    """How many of these, from the first on, are enough to be timed: what they share is computed once."""
    shared = _shared(sequences)
    tokens = shared
    for number, sequence in enumerate(sequences):
        tokens += len(sequence) - shared
        if tokens > most_tokens and number >= _LEAST_TIMED:
            return number
    return len(sequences)


@contextmanager
def _row_named(example: Example) -> Iterator[None]:
    """What is wrong with a row is told with its place in the user's file."""
    try:
        yield
    except InputError as error:
        problem = error.problems[0]
        where = f"{example.file}:{example.line} (id {example.id})"
        raise InputError(problem.what, where=where, cure=problem.cure or "change the row, or leave it out") from None


def _judged(pair: Pair, better: float, worse: float, seconds: float) -> RawAnswer:
    """`better` and `worse` are the log-probabilities of the two answers; nothing is written, both are read."""
    prompt = pair.chosen.ids[: pair.chosen.trained.index(True)]
    a_token = better / pair.chosen.trained_tokens - worse / pair.rejected.trained_tokens
    margin = better - worse
    return RawAnswer(
        preferred(margin), "stop", _hash(prompt), len(pair.ids), 0, seconds,
        parts={"margin": margin, "margin_per_token": a_token},
    )  # fmt: skip


def _hash(prompt: Sequence[int]) -> str:
    return hashlib.sha256(array("q", prompt).tobytes()).hexdigest()[:16]
