"""Generation from token ids: prompts side by side, their common beginning computed once, a cache of keys and values.

Knows no text. Greedy generation is what evaluation uses; cached and batched it equals plain generation (LAW 6).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tuneworth.inference.cache import Prefix, Recorder, RowCache
from tuneworth.inference.choosing import Node, choice_tree


@dataclass(frozen=True, slots=True)
class Generation:
    """Tokens written for one prompt. `finish_reason` is `stop` (end token, not included) or `length`.

    `seconds` is this prompt's share of its batch's wall time.
    """

    ids: tuple[int, ...]
    finish_reason: str
    seconds: float


class Engine:
    """A causal model ready to continue token ids. Not thread-safe."""

    def __init__(self, model: torch.nn.Module, *, end_id: int, device: str = "cpu", batch_tokens: int = 2048) -> None:
        self._model = model
        self._end_id = end_id
        self._device = device
        self._batch_tokens = batch_tokens

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        choices: Sequence[Sequence[int]] = (),
        on_done: Callable[[int], None] = lambda rows: None,
    ) -> list[Generation]:
        """Continue every prompt greedily for at most `max_new_tokens` tokens; answers in the order of the prompts.

        With `choices` (token ids each) every answer is one of them: at each token the likeliest that still leads to
        a choice is taken, and a row is finished as soon as only one choice is left.
        `on_done` is called with the number of prompts finished after each batch.
        """
        if not prompts:
            return []
        tree = choice_tree(choices, self._end_id) if choices else None
        prefix = self._prefix(prompts)
        tails = [list(prompt[prefix.tokens :]) for prompt in prompts]
        answers: list[Generation | None] = [None] * len(prompts)
        for batch in self._batches([len(tail) for tail in tails]):
            start = time.perf_counter()
            some = [tails[i] for i in batch]
            written = (
                self._choose_batch(prefix, some, tree, choices)
                if tree
                else self._generate_batch(prefix, some, max_new_tokens)
            )
            seconds = (time.perf_counter() - start) / len(batch)
            for index, (ids, reason) in zip(batch, written, strict=True):
                answers[index] = Generation(tuple(ids), reason, seconds)
            on_done(len(batch))
        return [answer for answer in answers if answer is not None]

    @torch.no_grad()
    def stream(
        self, prompt: Sequence[int], *, max_new_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[int]:
        """Yield tokens one by one until the end token; sampled when `temperature` is over 0, reproducible by `seed`."""
        chance = torch.Generator().manual_seed(seed)
        rows = RowCache(Prefix.empty(), 1, len(prompt) + max_new_tokens, self._device)
        logits = self._forward(list(prompt), rows.feed([len(prompt)]), rows, [len(prompt) - 1])
        for written in range(1, max_new_tokens + 1):
            if temperature > 0:
                chances = torch.softmax(logits[0].double().cpu() / temperature, -1)
                token = int(torch.multinomial(chances, 1, generator=chance))
            else:
                token = int(logits[0].argmax())
            if token == self._end_id:
                return
            yield token
            if written < max_new_tokens:
                logits = self._forward([token], rows.feed([1]), rows, [0])

    def _prefix(self, prompts: Sequence[Sequence[int]]) -> Prefix:
        """The beginning that all prompts share, computed once; each prompt keeps at least its last token."""
        ordered = sorted(map(tuple, prompts))
        first, last = ordered[0], ordered[-1]
        most = min(len(prompt) for prompt in prompts) - 1
        shared = 0
        while shared < most and first[shared] == last[shared]:
            shared += 1
        if len(prompts) == 1 or shared == 0:
            return Prefix.empty()
        recorder = Recorder()
        self._forward(list(first[:shared]), list(range(shared)), recorder, [shared - 1])
        return recorder.prefix()

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Indices of prompts of like length whose tails together stay within the token bound."""
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
            if batch and lengths[index] * (len(batch) + 1) > self._batch_tokens:
                yield batch
                batch = []
            batch.append(index)
        yield batch

    def _generate_batch(
        self, prefix: Prefix, tails: list[list[int]], max_new_tokens: int
    ) -> list[tuple[list[int], str]]:
        written: list[list[int]] = [[] for _ in tails]
        reasons = ["length"] * len(tails)
        rows, logits = self._read(prefix, tails, max_new_tokens)
        active = list(range(len(tails)))
        for step in range(max_new_tokens):
            tokens: list[int] = logits.argmax(-1).tolist()
            keep = []
            for place, (row, token) in enumerate(zip(active, tokens, strict=True)):
                if token == self._end_id:
                    reasons[row] = "stop"
                else:
                    written[row].append(token)
                    keep.append(place)
            if not keep or step == max_new_tokens - 1:
                break
            active, logits = self._next(rows, active, keep, tokens)
        return list(zip(written, reasons, strict=True))

    def _choose_batch(
        self, prefix: Prefix, tails: list[list[int]], tree: Node, choices: Sequence[Sequence[int]]
    ) -> list[tuple[list[int], str]]:
        rows, logits = self._read(prefix, tails, max(map(len, choices)))
        nodes = [tree] * len(tails)
        active = list(range(len(tails)))
        while True:
            tokens, keep = [], []
            for place, row in enumerate(active):
                allowed = list(nodes[row].children)
                token = allowed[int(logits[place, allowed].argmax())]
                nodes[row] = nodes[row].children[token]
                tokens.append(token)
                if nodes[row].only is None:
                    keep.append(place)
            if not keep:
                return [(list(choices[node.only or 0]), "stop") for node in nodes]
            active, logits = self._next(rows, active, keep, tokens)

    def _read(self, prefix: Prefix, tails: list[list[int]], room: int) -> tuple[RowCache, Tensor]:
        """Feed every row its prompt; returns the cache and the logits [B, V] of each row's next token."""
        lengths = [len(tail) for tail in tails]
        rows = RowCache(prefix, len(tails), max(lengths) + room, self._device)
        ends = list(itertools.accumulate(lengths))
        ids = [token for tail in tails for token in tail]
        return rows, self._forward(ids, rows.feed(lengths), rows, [end - 1 for end in ends])

    def _next(self, rows: RowCache, active: list[int], keep: list[int], tokens: list[int]) -> tuple[list[int], Tensor]:
        """Feed the rows at places `keep` their new token; returns who is active now and the next logits."""
        if len(keep) < len(active):
            active = [active[place] for place in keep]
            tokens = [tokens[place] for place in keep]
            rows.keep(keep)
        return active, self._forward(tokens, rows.feed([1] * len(active)), rows, list(range(len(active))))

    def _forward(self, ids: list[int], positions: list[int], layout: Any, wanted: list[int]) -> Tensor:
        """Logits [N, V] at the N wanted places of one packed sequence."""
        out: Tensor = self._model(
            input_ids=torch.tensor([ids], device=self._device),
            position_ids=torch.tensor([positions], device=self._device),
            layout=layout,
            use_cache=False,
            logits_to_keep=torch.tensor(wanted, device=self._device),
        ).logits[0]
        return out
