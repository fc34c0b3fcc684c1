"""How a text becomes an answer and an answer a score. One score a row, in 0..1."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal

from rouge_score.rouge_scorer import RougeScorer

from tuneworth.data.example import Example
from tuneworth.evaluation.records import Answer, RawAnswer

Metric = Literal["accuracy", "exact-match", "rouge-l"]
_EDGES = re.compile(r"^[\s\"'`*.:\-]+|[\s\"'`*.:]+$")
_rouge = RougeScorer(["rougeL"], use_stemmer=False)


def default_metric(kind: str) -> Metric:
    """The metric of a kind of task when the user names none."""
    return "accuracy" if kind == "classification" else "rouge-l"


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that `text` states, or None.

    White space, quotes and letter case around it are forgiven; more words are not, except that a label which
    opens the first line and is followed by a break counts ("card_arrival - the customer ...").
    """
    cleaned = _fold(text)
    known = {_fold(label): label for label in labels}
    if cleaned in known:
        return known[cleaned]
    first_line = _fold(text.strip().split("\n", 1)[0])
    if first_line in known:
        return known[first_line]
    openings = [folded for folded in known if re.match(re.escape(folded) + r"(?![\w])(?!-\w)", first_line)]
    return known[max(openings, key=len)] if openings else None


def exact_match(text: str, wanted: str) -> float:
    """1 when both are equal after NFC and folding of white space, else 0."""
    return float(_spaces(text) == _spaces(wanted))


def rouge_l(text: str, wanted: str) -> float:
    """ROUGE-L F-measure (Lin 2004) as computed by rouge-score."""
    return float(_rouge.score(wanted, text)["rougeL"].fmeasure)


def score(
    examples: Sequence[Example], answers: Sequence[RawAnswer], metric: Metric, labels: Sequence[str]
) -> list[Answer]:
    """Read and score every answer, in order. A row whose call failed scores 0 and keeps its error."""
    judge: Callable[[str, str], float] = rouge_l if metric == "rouge-l" else exact_match
    scored = []
    for example, answer in zip(examples, answers, strict=True):
        if metric == "accuracy":
            parsed = parse_label(answer.text, labels)
            value = float(parsed == example.answer)
        else:
            parsed = answer.text.strip() or None
            value = judge(answer.text, example.answer) if parsed is not None else 0.0
        scored.append(
            Answer(
                id=example.id,
                group=example.group,
                prompt_hash=answer.prompt_hash,
                wanted=example.answer,
                raw=answer.text,
                parsed=parsed,
                score=0.0 if answer.error else value,
                input_tokens=answer.input_tokens,
                output_tokens=answer.output_tokens,
                seconds=answer.seconds,
                finish_reason=answer.finish_reason,
                error=answer.error,
            )
        )
    return scored


def _fold(text: str) -> str:
    return _EDGES.sub("", _spaces(text)).casefold()


def _spaces(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
