"""Is this data set fit for its task? Findings with their rows, and a judgement with its reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneworth.data import checks
from tuneworth.data.example import Example
from tuneworth.data.findings import Finding, Judgement, RowRef, Split, Status, plural
from tuneworth.data.fitness import FIT_CODES, Growth, detectable, fitness
from tuneworth.data.normalising import NORMALISATION
from tuneworth.data.vectors import Vectorise

SCHEMA = "tuneworth.audit/1"
TRAIN_ROWS_FAIL, TRAIN_ROWS_WARN = 50, 200
TEST_ROWS_FAIL, TEST_ROWS_WARN = 30, 200
# What says something about size and not about quality.
_SIZE_CODES = frozenset(["rare-class", "class-missing-in-train", "class-missing-in-test"])
_OTHER_CODES = _SIZE_CODES | FIT_CODES


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found in a data set.

    `rows` counts rows by split as they were given, before any repair; `classes` counts rows by label and
    split (empty when the kind is not classification); `tokens` sums up the rows' lengths in tokens, None when
    they were not counted.
    """

    answers: Mapping[str, Judgement]
    rows: Mapping[Split, int]
    findings: tuple[Finding, ...]
    classes: Mapping[str, Mapping[Split, int]]
    tokens: Mapping[str, int] | None

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


def audit(
    train: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
    *,
    kind: str,
    count_tokens: Callable[[Example], int] | None = None,
    context_tokens: int | None = None,
    dropped: Sequence[Finding] = (),
    vectorise: Vectorise | None = None,
    traffic: Sequence[Example] = (),
    seed: int = 0,
) -> Audit:
    """Look at the rows of a data set as they were given; empty splits are ones that do not exist (yet).

    `count_tokens` gives the length in tokens of a whole example, prompt and answer; `context_tokens` is the
    most that the model can take. `dropped` are findings of reading: rows that could not be used at all.
    `vectorise` makes sentence vectors, `traffic` is a sample of real requests (their answers are not looked at).
    """
    parts: dict[Split, Sequence[Example]] = {"train": train, "validation": validation, "test": test}
    keys = checks.keys_of(parts)
    findings = [*dropped, *checks.leaks(parts, keys), *checks.duplicates(parts, keys)]
    findings += checks.contradictions(parts, keys, kind)
    tokens = None
    if count_tokens is not None:
        lengths = {split: [count_tokens(example) for example in examples] for split, examples in parts.items()}
        tokens = _lengths(lengths, context_tokens)
        if context_tokens is not None:
            findings += checks.too_long(parts, lengths, context_tokens)
    if kind == "classification":
        findings += checks.balance(parts)
    findings += checks.private_data(parts)
    findings += checks.special_tokens(parts)
    fit = fitness(parts, traffic, kind=kind, vectorise=vectorise, seed=seed)
    findings += fit.findings
    answers = {
        "domain": fit.domain,
        "relevance": fit.relevance,
        "quality": _quality(findings),
        "size": _size(parts, kind, findings, fit.growth),
    }
    rows = {split: len(examples) for split, examples in parts.items()}
    return Audit(answers, rows, tuple(findings), _classes(parts) if kind == "classification" else {}, tokens)


def _lengths(lengths: Mapping[Split, Sequence[int]], context_tokens: int | None) -> dict[str, int] | None:
    everything = sorted(length for part in lengths.values() for length in part)
    if not everything:
        return None
    last = len(everything) - 1
    summary = {"min": everything[0], "p50": everything[last // 2], "p95": everything[math.ceil(last * 0.95)]}
    summary["max"] = everything[last]
    return summary if context_tokens is None else {**summary, "context": context_tokens}


def _classes(parts: checks.Parts) -> dict[str, dict[Split, int]]:
    """Rows of each label by split, the largest classes first."""
    counts = {split: Counter(example.answer for example in examples) for split, examples in parts.items()}
    total = sum(counts.values(), Counter[str]())
    order = sorted(total, key=lambda label: (-total[label], label))
    return {label: {split: counts[split][label] for split in parts} for label in order}


def _quality(findings: Sequence[Finding]) -> Judgement:
    grave = [finding for finding in findings if finding.code not in _OTHER_CODES and finding.severity != "info"]
    if not grave:
        minor = [finding.message for finding in findings if finding.code not in _OTHER_CODES]
        return Judgement("pass", "; ".join(minor) if minor else "no flaw was found in any row")
    failed = any(finding.severity == "error" for finding in grave)
    return Judgement("fail" if failed else "warn", "; ".join(finding.message for finding in grave))


def _size(parts: checks.Parts, kind: str, findings: Sequence[Finding], growth: Growth | None) -> Judgement:
    train, test = len(parts["train"]), len(parts["test"])
    why = [f"{plural(train, 'train row')}"]
    levels = [_level(train, TRAIN_ROWS_FAIL, TRAIN_ROWS_WARN)]
    if kind == "classification" and train:
        least = min(Counter(example.answer for example in parts["train"]).values())
        classes = len({example.answer for example in parts["train"]})
        why[0] += f" of {plural(classes, 'class', 'classes')}, {least:,} in the smallest"
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
