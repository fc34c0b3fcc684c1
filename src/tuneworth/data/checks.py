"""The audit's checks of whole rows: each looks at the facts of all rows and returns a Flaw for each kind and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tuneworth.data.example import Example
from tuneworth.data.facts import answer_key, hash_of
from tuneworth.data.findings import Severity, Split, plural
from tuneworth.data.private import KINDS
from tuneworth.data.stacking import Flaw, Numbers, Stack

TOO_MANY = 0.2
"""Share of rows from which a flaw is no longer a blemish but makes the data unfit."""
FEW_IN_CLASS = 5
"""Classes with fewer train rows are reported as rare."""
UNEVEN = 10
"""How many times larger than the smallest the largest class may be before that is a warning."""
CUT_AT_LENGTH = 0.01
"""Share of answers of exactly the greatest length from which a length limit is suspected."""

LEARNT_AND_HELD_OUT: tuple[tuple[Split, Split], ...] = (
    ("train", "test"),
    ("validation", "test"),
    ("train", "validation"),
)
_NONE: Numbers = np.zeros(0, np.int64)


def duplicates(stack: Stack, kind: str) -> list[Flaw]:
    """Rows whose input repeats that of an earlier row of the same split, whatever their answers are.

    One question may well have several pairs of a better and a worse answer, so of these only equal pairs count.
    """
    flaws = []
    for split in stack.parts:
        facts = stack.facts(split)
        wholes = _repeats(facts.inputs * np.uint64(3) + facts.answers)
        pairs = kind == "preference"
        repeats = stack.start(split) + (wholes if pairs else _repeats(facts.inputs))
        if len(repeats):
            verb = plural(len(repeats), f"row of {split} repeats", f"rows of {split} repeat")
            message = f"{verb} the input of an earlier one, {len(wholes):,} of them with the same answer"
            message = f"{verb} an earlier one: input, better and worse answer are the same" if pairs else message
            severity: Severity = "warn" if len(repeats) > TOO_MANY * len(stack.facts(split)) else "info"
            repair = "reduced to the first row where the answers agree too" if split == "train" else None
            flaws.append(Flaw("duplicate-exact", severity, len(repeats), message, repeats, repair, split))
    return flaws


def _repeats(values: NDArray[np.uint64]) -> Numbers:
    """The places of values that stand earlier in the array too."""
    first = np.zeros(len(values), bool)
    first[np.unique(values, return_index=True)[1]] = True
    return np.flatnonzero(~first)


def leaks(stack: Stack) -> list[Flaw]:
    """Held-out rows that are also where rows are learnt or chosen from. Counts and names held-out rows."""
    flaws = []
    for earlier, later in LEARNT_AND_HELD_OUT:
        known, held_out = stack.facts(earlier).inputs, stack.facts(later).inputs
        leaked = np.flatnonzero(np.isin(held_out, known))
        if not len(leaked):
            continue
        source = int(np.isin(known, held_out).sum())
        severity: Severity = "error" if len(leaked) > TOO_MANY * len(held_out) else "warn"
        message = f"{plural(len(leaked), f'{later} row is', f'{later} rows are')} also in {earlier}"
        repair = f"{plural(source, 'row is', 'rows are')} removed from {earlier}; {later} stays as it is"
        rows = stack.start(later) + leaked
        flaws.append(Flaw("leak-exact", severity, len(leaked), message, rows, repair, later))
    return flaws


def contradictions(stack: Stack, kind: str) -> list[Flaw]:
    """Inputs with different answers, over all splits together. Counts inputs, names every row of theirs."""
    if kind == "preference":
        return _turned_pairs(stack)
    which, inverse = np.unique(stack.column("inputs"), return_inverse=True)
    pairs = np.unique(np.stack([inverse.astype(np.uint64), stack.column("answers")]), axis=1)
    minds = np.bincount(pairs[0].astype(np.int64), minlength=len(which))
    concerned = np.flatnonzero(minds[inverse] > 1)
    count = int((minds > 1).sum())
    if not count:
        return []
    severity: Severity = "info"  # free text may well have several good answers
    if kind == "classification":
        severity = "error" if len(concerned) > TOO_MANY * len(stack) else "warn"
    inputs = plural(count, "input has", "inputs have")
    message = f"{inputs} different answers in {plural(len(concerned), 'row')}; nothing can get all of these right"
    rows = concerned[np.argsort(inverse[concerned], kind="stable")] if len(concerned) > 100 else concerned
    repair = "the rows stay; decide which answer is right and change or remove the others"
    return [Flaw("contradiction", severity, count, message, rows, repair)]


def _turned_pairs(stack: Stack) -> list[Flaw]:
    """Pairs of answers to one input of which now the one and now the other is the better one."""
    inputs = stack.column("inputs")
    _, which, counts = np.unique(inputs, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[which] > 1)
    ways: dict[tuple[int, frozenset[int]], dict[int, list[int]]] = {}
    for row, pair in zip(rows.tolist(), stack.look(rows, _better_and_worse), strict=True):
        ways.setdefault((int(which[row]), frozenset(pair)), {}).setdefault(pair[0], []).append(row)
    turned = [by_better for by_better in ways.values() if len(by_better) > 1]
    if not turned:
        return []
    concerned = np.array([row for by_better in turned for own in by_better.values() for row in own], dtype=np.int64)
    pairs = plural(len(turned), "pair of answers is", "pairs of answers are")
    message = f"{pairs} judged one way and the other way in {plural(len(concerned), 'row')}"
    repair = "the rows stay; decide which answer is better and remove the other rows"
    return [Flaw("contradiction", "warn", len(turned), message, concerned, repair)]


def _better_and_worse(example: Example) -> tuple[int, int]:
    worse = "" if example.rejected is None else example.rejected.content
    return hash_of(answer_key(example)), hash_of(worse.strip())


def groups(stack: Stack) -> list[Flaw]:
    """Rows that belong together, such as several answers to one instruction."""
    column = stack.column("groups")
    grouped = column[column != 0]
    count = len(np.unique(grouped))
    if count == len(grouped):
        return []
    message = f"{plural(len(grouped), 'row belongs', 'rows belong')} to {plural(count, 'group')}"
    repair = "rows of a group stay in one split, or the test rows would be known from training"
    return [Flaw("groups", "info", count, message, _NONE, repair)]


def too_long(stack: Stack, lengths: Mapping[int, int], context_tokens: int) -> list[Flaw]:
    """Rows that, prompt and answer together, do not fit into the model's context. `lengths` are in tokens, by row."""
    long = np.array(sorted(row for row, length in lengths.items() if length > context_tokens), dtype=np.int64)
    flaws = []
    for place, split in enumerate(stack.parts):
        rows = long[stack.splits_of(long) == place]
        if not len(rows):
            continue
        severity: Severity = "error" if len(rows) > TOO_MANY * len(stack.facts(split)) else "warn"
        verb = plural(len(rows), f"{split} row exceeds", f"{split} rows exceed")
        message = f"{verb} the model's context of {context_tokens:,} tokens"
        repair = "left out; answers are never cut" if split != "test" else None
        flaws.append(Flaw("too-long", severity, len(rows), message, rows, repair, split))
    return flaws


def answers(stack: Stack, kind: str) -> list[Flaw]:
    """Answers that teach nothing: all the same, the same for many inputs, cut off, refusals and placeholders."""
    facts = stack.facts("train")
    if len(facts) > 1 and (facts.answers == facts.answers[0]).all():
        message = f"all {len(facts):,} rows of train have the same answer; there is nothing to learn from them"
        repair = "add rows with other answers, or choose another answer column with --output NAME"
        return [Flaw("constant-answer", "error", len(facts), message, stack.numbers("train"), repair, "train")]
    if kind in ("classification", "multilabel"):
        return []
    flaws = []
    if kind in ("generation", "chat"):
        flaws += _repeated_answers(stack)
    total = max(len(stack), 1)
    boilerplate = _marked(stack, "boilerplate-answer")
    if len(boilerplate):
        verb = plural(len(boilerplate), "answer is", "answers are")
        message = f"{verb} a refusal, a placeholder or a form that was never filled in"
        severity: Severity = "warn" if len(boilerplate) > 0.01 * total else "info"
        repair = "the rows stay; remove them unless the model should answer like this"
        flaws.append(Flaw("boilerplate-answer", severity, len(boilerplate), message, boilerplate, repair))
    cut = np.union1d(_marked(stack, "truncated-answer"), _at_the_limit(stack))
    # Where most answers end like this it is the data's own style.
    if len(cut) and len(cut) <= 0.5 * total:
        message = f"{plural(len(cut), 'answer seems', 'answers seem')} to be cut off in the middle"
        severity = "warn" if len(cut) > 0.01 * total else "info"
        repair = "the rows stay; give their answers in full, or remove them: a model learns to stop where they stop"
        flaws.append(Flaw("truncated-answer", severity, len(cut), message, cut, repair))
    return flaws


def _repeated_answers(stack: Stack) -> list[Flaw]:
    """Free text that stands in many rows as it is."""
    column = stack.column("answers")
    which, inverse = np.unique(column, return_inverse=True)
    # Inputs count, not rows: a duplicated row repeats its answer anyhow.
    pairs = np.unique(np.stack([inverse.astype(np.uint64), stack.column("inputs")]), axis=1)[0].astype(np.int64)
    inputs = np.bincount(pairs, minlength=len(which))
    often = inputs > max(10, 0.01 * len(stack))
    rows = np.flatnonzero(often[inverse])
    if not len(rows):
        return []
    severity: Severity = "warn" if len(rows) > TOO_MANY * len(stack) else "info"
    verb = plural(int(often.sum()), "answer stands", "answers stand")
    message = f"{verb} word for word in {plural(len(rows), 'row')} with different inputs"
    repair = "the rows stay; a model that learns them gives this answer to almost anything"
    return [Flaw("repeated-answer", severity, int(often.sum()), message, rows, repair)]


def _at_the_limit(stack: Stack) -> Numbers:
    """Answers of exactly the greatest length, when there are so many that something has cut them."""
    sizes = stack.column("answer_sizes")
    if not len(sizes) or sizes.max() < 200:
        return _NONE
    longest = np.flatnonzero(sizes == sizes.max())
    different = len(np.unique(stack.column("answers")[longest]))
    return longest if different > max(4, CUT_AT_LENGTH * len(sizes)) else _NONE


def balance(stack: Stack) -> list[Flaw]:
    """How even the classes of train are, which are rare, and which are missing on one side."""
    counts = Counter(stack.facts("train").labels)
    if not counts:
        return []
    flaws = []
    total = counts.total()
    (largest, most), (smallest, least) = counts.most_common()[0], counts.most_common()[-1]
    if len(counts) > 1 and (most >= UNEVEN * least or most > (1 - TOO_MANY) * total):
        classes = plural(len(counts), "class", "classes")
        sizes = f"'{largest}' has {plural(most, 'row')} ({most / total:.0%} of train), '{smallest}' has {least:,}"
        message = f"{classes} of uneven size: {sizes}"
        repair = "add rows of the small classes if they matter; judge by macro-F1 rather than by accuracy"
        flaws.append(Flaw("imbalance", "warn", len(counts), message, _NONE, repair, "train"))
    rare = [label for label, count in counts.items() if count < FEW_IN_CLASS]
    if rare:
        classes = plural(len(rare), "class has", "classes have")
        message = f"{classes} fewer than {FEW_IN_CLASS} train rows: {some(rare)}"
        repair = "add rows of these classes, or merge them with others"
        flaws.append(Flaw("rare-class", "warn", len(rare), message, _of_labels(stack, "train", rare), repair, "train"))
    return flaws + _missing(stack, set(counts))


def _missing(stack: Stack, learnt: set[str]) -> list[Flaw]:
    flaws = []
    held_out: tuple[Split, ...] = ("validation", "test")
    unknown = sorted({label for split in held_out for label in stack.facts(split).labels} - learnt)
    if unknown:
        message = f"{plural(len(unknown), 'class is', 'classes are')} not in train: {some(unknown)}"
        rows = np.concatenate([_of_labels(stack, split, unknown) for split in held_out])
        repair = "add train rows of these classes, or correct the labels if they are misspelt"
        flaws.append(Flaw("class-missing-in-train", "warn", len(unknown), message, rows, repair))
    tested = set(stack.facts("test").labels)
    if tested and learnt - tested:
        labels = sorted(learnt - tested)
        message = f"{plural(len(labels), 'class is', 'classes are')} not in test: {some(labels)}"
        repair = "add test rows of these classes, or nobody will know how well they are recognised"
        flaws.append(Flaw("class-missing-in-test", "warn", len(labels), message, _NONE, repair, "test"))
    return flaws


def _of_labels(stack: Stack, split: Split, labels: Sequence[str]) -> Numbers:
    hashes = np.array([hash_of(label.strip()) for label in labels], np.uint64)
    return stack.start(split) + np.flatnonzero(np.isin(stack.facts(split).answers, hashes))


def private_data(stack: Stack) -> list[Flaw]:
    """Private data and secrets by kind. Messages never show them."""
    flaws = []
    repair = "the rows stay; replace it by something made up: a model can repeat what it was trained on"
    for code, what in KINDS.items():
        rows = _marked(stack, code)
        if len(rows):
            message = f"{plural(len(rows), 'row holds', 'rows hold')} {what}"
            flaws.append(Flaw(code, "warn", len(rows), message, rows, repair))
    return flaws


def special_tokens(stack: Stack) -> list[Flaw]:
    """Text that looks like a model's control tokens. It is encoded as plain text everywhere."""
    rows = _marked(stack, "special-token")
    if not len(rows):
        return []
    message = f"{plural(len(rows), 'row holds', 'rows hold')} text that looks like a control token"
    return [Flaw("special-token", "info", len(rows), message, rows, "read as plain text, never as control tokens")]


def _marked(stack: Stack, code: str) -> Numbers:
    found = [stack.start(split) + part.facts.marked(code) for split, part in stack.parts.items()]
    return np.concatenate(found)


def some(labels: Sequence[str]) -> str:
    """The first ten labels, and how many more there are."""
    shown = ", ".join(f"'{label}'" for label in labels[:10])
    return shown if len(labels) <= 10 else f"{shown} and {len(labels) - 10:,} more"
