"""Is this data set fit for its task? Findings with their rows, and a judgement with its reason.

`audit` looks at rows in memory, `audit_parts` at rows wherever they are; the second is what the first calls, so that a
small data set is judged like a large one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tuneworth.data import checks, near, samples
from tuneworth.data.coverage import sample_rows
from tuneworth.data.example import Example
from tuneworth.data.facts import InMemory, Inspection, Part, facts_of
from tuneworth.data.findings import Finding, Judgement, RowRef, Split, Status, plural
from tuneworth.data.fitness import FIT_CODES, ROWS_LOOKED_AT, Growth, detectable, fitness
from tuneworth.data.normalising import NORMALISATION
from tuneworth.data.stacking import Flaw, Stack, itself
from tuneworth.data.vectors import Vectorise

CountTokens = Callable[[Sequence[Example]], list[int]]

SCHEMA = "tuneworth.audit/1"
TRAIN_ROWS_FAIL, TRAIN_ROWS_WARN = 50, 200
TEST_ROWS_FAIL, TEST_ROWS_WARN = 30, 200
TEMPLATE_BYTES = 256
"""What a chat template may add to a whole conversation, a default system message for example."""
TOKENS_SAMPLED = 5_000
"""Of more rows than this, lengths in tokens are summed up from so many."""
# What says something about size and not about quality.
_SIZE_CODES = frozenset(["rare-class", "class-missing-in-train", "class-missing-in-test"])
_OTHER_CODES = _SIZE_CODES | FIT_CODES
_SEVERITIES = ("error", "warn", "info")


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found in a data set.

    `rows` counts rows by split as they were given, before any repair; `classes` counts rows by label and
    split (empty when the kind is not classification); `tokens` sums up the rows' lengths in tokens (of `rows` rows),
    None when they were not counted. `near` are the pairs of rows that are nearly the same, as numbers of rows with
    train, validation and test one after the other.
    """

    answers: Mapping[str, Judgement]
    rows: Mapping[Split, int]
    findings: tuple[Finding, ...]
    classes: Mapping[str, Mapping[Split, int]]
    tokens: Mapping[str, int] | None
    near: near.Pairs | None = None

    def count(self, code: str, split: Split | None = None) -> int:
        """The sum of the counts of a code's findings, of one split if given; 0 when there are none."""
        return sum(f.count for f in self.findings if f.code == code and split in (None, f.split))

    def rows_of(self, code: str) -> frozenset[RowRef]:
        """Every row that findings of this code name."""
        return frozenset(row for finding in self.findings if finding.code == code for row in finding.rows)

    def to_json(self) -> dict[str, Any]:
        """audit.json."""
        return {
            "schema": SCHEMA,
            "answers": {name: {"status": a.status, "why": a.why} for name, a in self.answers.items()},
            "rows": dict(self.rows),
            "classes": {label: dict(counts) for label, counts in self.classes.items()},
            "tokens": None if self.tokens is None else dict(self.tokens),
            "normalisation": NORMALISATION,
            "findings": [finding.to_json() for finding in self.findings],
        }


@dataclass(frozen=True, slots=True)
class Ruler:
    """How rows are measured by the model that will be trained. `count_tokens` gives the lengths in tokens of whole
    examples, prompt and answer; `context_tokens` is the most that the model can take; `special_tokens` are its control
    strings. It is used on few rows: most are short enough by their bytes."""

    count_tokens: CountTokens
    context_tokens: int | None = None
    special_tokens: tuple[str, ...] = ()


def audit(
    train: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
    *,
    kind: str,
    ruler: Ruler | None = None,
    vectorise: Vectorise | None = None,
    traffic: Sequence[Example] = (),
    dropped: Sequence[Finding] = (),
    seed: int = 0,
) -> Audit:
    """Look at the rows of a data set as they were given; empty splits are ones that do not exist (yet).

    `vectorise` makes sentence vectors; `traffic` is a sample of real requests, whose answers are not looked at;
    `dropped` are findings of reading: rows that could not be used at all.
    """
    inspection = Inspection(kind, ruler.special_tokens if ruler else ())
    given: dict[Split, Sequence[Example]] = {"train": train, "validation": validation, "test": test}
    parts = {split: InMemory(examples, facts_of(examples, inspection)) for split, examples in given.items()}
    return audit_parts(parts, kind=kind, ruler=ruler, vectorise=vectorise, traffic=traffic, dropped=dropped, seed=seed)


def audit_parts(
    parts: Mapping[Split, Part],
    *,
    kind: str,
    ruler: Ruler | None = None,
    vectorise: Vectorise | None = None,
    traffic: Sequence[Example] = (),
    dropped: Sequence[Finding] = (),
    seed: int = 0,
) -> Audit:
    """The audit of rows whose facts are known. `parts` has all three splits, in the order train, validation, test.

    Exact and near duplicates, leaks, contradictions, private data and lengths are of all rows; doubtful labels,
    languages and meanings of a seeded sample, which their messages state when it is not all rows. Two questions are
    looked into beside the others, in threads: they are mostly products of matrices and the unpacking of a table, during
    which Python is free. A product itself takes one core: two cores make the small ones slower. Nothing is shared but
    the rows, so the answers are those of one question after the other, to the bit, on any number of cores.
    """
    stack = Stack(parts)
    some = _some_rows(stack, seed)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(2) as beside:
        languages = beside.submit(samples.mixed_languages, stack, seed)
        fit = beside.submit(
            fitness, some, traffic, rows=len(stack.facts("train")), kind=kind, vectorise=vectorise, seed=seed
        )
        pairs, flaws = _pairs_and_flaws(stack, kind, seed)
        tokens, long = _lengths(stack, ruler, seed) if ruler is not None and len(stack) else (None, [])
        flaws += [*long, *checks.answers(stack, kind), *languages.result()]
        if vectorise is not None:
            flaws += samples.same_meaning(stack, pairs, vectorise, seed)
        flaws += [*checks.private_data(stack), *checks.special_tokens(stack)]
        found = fit.result()
    findings = (*dropped, *stack.findings(flaws), *found.findings)
    answers = {
        "domain": found.domain,
        "relevance": found.relevance,
        "quality": _quality(findings),
        "size": _size(stack, kind, findings, found.growth),
    }
    rows = {split: len(part.facts) for split, part in parts.items()}
    return Audit(answers, rows, findings, _classes(stack) if kind == "classification" else {}, tokens, pairs)


def _pairs_and_flaws(stack: Stack, kind: str, seed: int) -> tuple[near.Pairs, list[Flaw]]:
    """Rows that are equal or nearly, and what is wrong with them and with labels."""
    flaws = [
        *checks.leaks(stack),
        *checks.duplicates(stack, kind),
        *checks.contradictions(stack, kind),
        *checks.groups(stack),
    ]
    pairs = near.near_pairs(stack)
    flaws += [*near.near_leaks(stack, pairs), *near.near_duplicates(stack, pairs)]
    if kind == "classification":
        flaws += [
            *checks.balance(stack),
            *near.near_contradictions(stack, pairs),
            *samples.doubtful_labels(stack, seed),
        ]
    return pairs, flaws


def _some_rows(stack: Stack, seed: int) -> dict[Split, list[Example]]:
    """A seeded sample of each split, whole."""
    return {
        split: stack.look(stack.numbers(split)[sample_rows(len(stack.facts(split)), ROWS_LOOKED_AT, seed)], itself)
        for split in stack.parts
    }


def _lengths(stack: Stack, ruler: Ruler, seed: int) -> tuple[dict[str, int], list[Flaw]]:
    """(lengths of the rows in tokens, summed up; rows that are too long). No row has more tokens than bytes."""
    measured = sample_rows(len(stack), TOKENS_SAMPLED, seed)
    rows = measured
    if ruler.context_tokens is not None:
        unclear = np.flatnonzero(stack.column("sizes") > ruler.context_tokens - TEMPLATE_BYTES)
        rows = np.union1d(measured, unclear)
    counts = ruler.count_tokens(stack.examples(rows))
    lengths = dict(zip(rows.tolist(), counts, strict=True))
    ordered = sorted(lengths[row] for row in measured.tolist())
    last = len(ordered) - 1
    summary = {"min": ordered[0], "p50": ordered[last // 2], "p95": ordered[math.ceil(last * 0.95)]}
    summary |= {"max": max(lengths.values()), "rows": len(ordered)}
    if ruler.context_tokens is None:
        return summary, []
    return {**summary, "context": ruler.context_tokens}, checks.too_long(stack, lengths, ruler.context_tokens)


def _classes(stack: Stack) -> dict[str, dict[Split, int]]:
    """Rows of each label by split, the largest classes first."""
    counts = {split: stack.facts(split).labels for split in stack.parts}
    total: Counter[str] = Counter()
    for part in counts.values():
        total.update(part)
    order = sorted(total, key=lambda label: (-total[label], label))
    return {label: {split: counts[split].get(label, 0) for split in stack.parts} for label in order}


def _quality(findings: Sequence[Finding]) -> Judgement:
    own = [finding for finding in findings if finding.code not in _OTHER_CODES]
    own.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    if not own:
        return Judgement("pass", "no flaw was found in any row")
    shown = [finding for finding in own if finding.severity != "info"] or own
    why = "; ".join(finding.message.partition("; ")[0] for finding in shown[:4])
    if len(own) > 4 or len(own) > len(shown):
        left = len(own) - len(shown[:4])
        why += f"; and {plural(left, 'other finding', 'other findings')}"
    status: dict[str, Status] = {"error": "fail", "warn": "warn", "info": "pass"}
    return Judgement(status[own[0].severity], why)


def _size(stack: Stack, kind: str, findings: Sequence[Finding], growth: Growth | None) -> Judgement:
    train, test = len(stack.facts("train")), len(stack.facts("test"))
    why = [f"{plural(train, 'train row')}"]
    levels = [_level(train, TRAIN_ROWS_FAIL, TRAIN_ROWS_WARN)]
    labels = stack.facts("train").labels
    if kind == "classification" and labels:
        why[0] += f" of {plural(len(labels), 'class', 'classes')}, {min(labels.values()):,} in the smallest"
    if test:
        # The widest that a 95 % interval of a share can be (normal approximation, at one half).
        points = 100 * 1.96 * math.sqrt(0.25 / test)
        verb = plural(test, "test row shows", "test rows show")
        why.append(f"{verb} an accuracy to within {points:.1f} points at worst (95 %)")
        why += detectable(test)
        levels.append(_level(test, TEST_ROWS_FAIL, TEST_ROWS_WARN))
    else:
        why.append("there is no test set yet; one will be split off")
    for finding in findings:
        if finding.code in _SIZE_CODES:
            why.append(finding.message)
            levels.append(1)
    if growth is not None:
        why.append(growth.why)
        levels.append(int(growth.wanted))
    order: tuple[Status, ...] = ("pass", "warn", "fail")
    return Judgement(order[max(levels)], "; ".join(why))


def _level(rows: int, fail: int, warn: int) -> int:
    return 2 if rows < fail else int(rows < warn)
