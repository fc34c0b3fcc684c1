"""Tool calling: the right tools with the right arguments, and words where no tool is wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.metrics.jsontext import parse_json, plain_json
from tuneworth.evaluation.metrics.metric import Kit
from tuneworth.evaluation.metrics.objects import same
from tuneworth.evaluation.metrics.texts import references_of, rouge_l
from tuneworth.evaluation.records import Answer, RawAnswer
from tuneworth.rendering.tools import read_calls, reply_text

_NAMED = 20
Calls = list[dict[str, Any]]


def calls_kit() -> Kit:
    """Reading and measuring answers that call tools or speak.

    The main metric is the right move: where calls are wanted, the same calls with the same arguments, however ordered
    and spaced; where none is wanted, words and no call. What the words say is measured beside it (ROUGE-L), since a
    reply in words is no matter of right or wrong.
    """
    values = {"right-calls": _right_calls, "right-tools": _right_tools}
    return Kit(_parse, values, _totals, lambda example: reply_text(example.reply.to_openai()))


def _parse(example: Example, answer: RawAnswer) -> str | None:
    """The calls as a JSON array ([] for words). None for a broken call, or an answer cut off inside one."""
    found = read_calls(answer.text)
    if found.broken or not (found.calls or found.words):
        return None
    return plain_json([{"name": call.name, "arguments": call.arguments} for call in found.calls])


def _right_calls(example: Example, answer: RawAnswer, parsed: str | None) -> float:
    return float(parsed is not None and equal_calls(parse_json(parsed), wanted_calls(example)))


def _right_tools(example: Example, answer: RawAnswer, parsed: str | None) -> float:
    return float(parsed is not None and _names(parse_json(parsed)) == _names(wanted_calls(example)))


def wanted_calls(example: Example) -> Calls:
    """The calls of the wanted answer."""
    return [{"name": call.name, "arguments": parse_json(call.arguments)} for call in example.calls]


def equal_calls(given: Calls, wanted: Calls) -> bool:
    """Whether two lists hold the same calls in any order: names exactly, arguments as JSON values."""
    left = list(wanted)
    for call in given:
        match = next((w for w in left if w["name"] == call["name"] and same(w["arguments"], call["arguments"])), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def _names(calls: Calls) -> Counter[str]:
    return Counter(call["name"] for call in calls)


def _totals(examples: Sequence[Example], answers: Sequence[Answer]) -> dict[str, Any]:
    """Each share is of the rows that it can be right on; None where there are none."""
    rows = [
        (example, answer, wanted_calls(example), None if answer.parsed is None else parse_json(answer.parsed))
        for example, answer in zip(examples, answers, strict=True)
    ]
    calling = [row for row in rows if row[2]]
    silent = [row for row in rows if not row[2]]
    named = [row for row in calling if row[3] is not None and _names(row[3]) == _names(row[2])]
    tried = [row for row in rows if row[3] or read_calls(row[1].raw).broken]
    unknown: Counter[str] = Counter()
    for example, _, _, given in rows:
        known = {tool["function"]["name"] for tool in example.tool_definitions}
        unknown.update(call["name"] for call in given or () if call["name"] not in known)
    words = [
        max(rouge_l(answer.raw, wanted) for wanted in references_of(example))
        for example, answer, _, given in silent
        if given == []
    ]
    return {
        "rows_that_call": len(calling),
        "right_tools": _share(len(named), calling),
        "right_arguments": _share(sum(equal_calls(given or [], wanted) for _, _, wanted, given in named), named),
        "right_abstention": _share(sum(given == [] for _, _, _, given in silent), silent),
        "needless_calls": _share(sum(bool(given) for _, _, _, given in silent), silent),
        "missed_calls": _share(sum(given == [] for _, _, _, given in calling), calling),
        "valid_json": _share(sum(row[3] is not None for row in tried), tried),
        "parallel_calls_right": _parallel(calling),
        "unknown_tools": sum(unknown.values()),
        "unknown_tools_named": dict(unknown.most_common(_NAMED)),
        "words_rouge_l": sum(words) / len(words) if words else None,
    }


def _parallel(calling: Sequence[tuple[Example, Answer, Calls, Any]]) -> float | None:
    several = [row for row in calling if len(row[2]) > 1]
    return _share(sum(given is not None and equal_calls(given, wanted) for _, _, wanted, given in several), several)


def _share(count: int, of: Sequence[Any]) -> float | None:
    return count / len(of) if of else None
