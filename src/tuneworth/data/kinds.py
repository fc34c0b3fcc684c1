"""What kind of task a file's rows are: recognised from the answers, or as the user says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import orjson

from tuneworth.data.contents import Content
from tuneworth.data.findings import plural
from tuneworth.data.shape import (
    KINDS,
    Kind,
    RowShape,
    is_label_name,
    is_short,
    label_separator,
    looks_like_labels,
    most_labels,
)  # fmt: skip

_FINAL = re.compile(r"\n#### *[^\n]+\s*$")


def recognise_kind(contents: Sequence[Content], shape: RowShape, output: str | None, wanted: str) -> tuple[Kind, str]:
    """(kind, why). `wanted` is "auto" or a kind; `output` is the answer's column.

    Answers are classes when they are short and few: at most a fifth as many as rows and at most 200; under a
    column name such as 'label' half as many as rows will do.
    """
    for kind in KINDS:
        if wanted == kind:
            return kind, f"you chose {kind}"
    if any(content.rejected is not None for content in contents):
        return "preference", "the kind is preference: each row has a better and a worse answer"
    if shape in ("chunks", "tags"):
        return "extraction", "the kind is extraction: the answers are JSON"
    calling = sum(bool(content.tools or content.reply.calls) for content in contents)
    if calling:
        return "tools", f"the kind is tools: {plural(calling, 'row has', 'rows have')} tools"
    turns = sum(len([m for m in content.messages if m.role == "user"]) > 1 for content in contents)
    if turns:
        return "chat", f"the kind is chat: {plural(turns, 'conversation has', 'conversations have')} several turns"
    answers = [content.answer for content in contents if content.answer.strip()]
    lists = [content.listed for content in contents if content.listed is not None]
    if lists and looks_like_labels([text for listed in lists for text in listed]):
        return "multilabel", "the kind is multilabel: the answers are lists of labels"
    if label_separator(output, answers) is not None:
        return "multilabel", "the kind is multilabel: the answers are several labels in one cell"
    if answers and all(map(_is_object, answers)):
        return "extraction", "the kind is extraction: the answers are JSON objects"
    if answers and all(map(_FINAL.search, answers)):
        return "reasoning", "the kind is reasoning: each answer ends with its result after '####'"
    return _labels_or_text(answers, output)


def _labels_or_text(answers: Sequence[str], output: str | None) -> tuple[Kind, str]:
    counts = Counter(answer.strip() for answer in answers)
    many = f"{len(counts):,} different answers in {len(answers):,} rows"
    if not all(map(is_short, counts)):
        return "generation", f"the kind is generation: there are long answers ({many})"
    if len(counts) <= most_labels(len(answers)) or (is_label_name(output) and len(counts) <= len(answers) / 2):
        return "classification", f"the kind is classification: {many}, all short"
    return "generation", f"the kind is generation: {many}, too many to be classes"


def _is_object(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        return isinstance(orjson.loads(text), dict)
    except ValueError:
        return False


def answer_of(content: Content, kind: Kind, separator: str | None) -> tuple[str, tuple[str, ...]]:
    """(answer, further answers) as an Example holds them: labels without the blanks around them, those of
    multilabel as a JSON array, a list of equally good answers as the first and the others."""
    if kind == "classification":
        return content.answer.strip(), ()
    if kind == "multilabel":
        return orjson.dumps(_labels(content, separator)).decode(), ()
    if content.listed:
        return content.listed[0], content.listed[1:]
    return content.answer, ()


def _labels(content: Content, separator: str | None) -> list[str]:
    if content.listed is not None:
        return list(content.listed)
    text = content.answer.strip()
    try:
        found = orjson.loads(text)
    except ValueError:
        found = None
    if isinstance(found, list) and all(isinstance(label, str) for label in found):
        return found
    parts = text.split(separator) if separator else [text]
    return [part.strip() for part in parts if part.strip()]
