"""Three of the audit's four questions, in words: does the set cover what is asked (domain), do its rows belong to the
task (relevance), would more of them help (size)?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneworth.data.coverage import FEWEST_ROWS, Coverage, coverage, showable
from tuneworth.data.example import Example
from tuneworth.data.findings import Finding, Judgement, Severity, Split, Status, plural, refs
from tuneworth.data.plain import Features, features_of
from tuneworth.data.relevance import MANY, misspelt_labels, odd_forms, off_topic
from tuneworth.data.size import Curve, learning_curve
from tuneworth.data.vectors import Floats, Vectorise
from tuneworth.power import POWER, smallest_detectable_difference

FIT_CODES = frozenset(["uncovered", "off-topic", "label-spelling", "odd-answer-form"])
UNCOVERED_WARN, UNCOVERED_FAIL = 0.05, 0.3
"""Share of requests, beyond chance, that the examples do not cover."""
OFF_TOPIC_WARN, OFF_TOPIC_FAIL = MANY, 0.2
"""Clean sets have up to 0.7 % of rows that look off-topic (docs/results.md, "Relevance")."""
GAIN_WANTED = 0.02
"""More rows are asked for when doubling them adds at least this to the accuracy, at the low end of its interval."""
ROWS_LOOKED_AT = 5_000
"""Rows of each split that are looked at, at most; more are sampled."""
DIFFER_ON = 0.1
"""Share of test rows that two ways answer differently, assumed before either is measured."""

Parts = Mapping[Split, Sequence[Example]]


@dataclass(frozen=True, slots=True)
class Growth:
    """What more rows are expected to do: a sentence, the curve behind it, and whether more are wanted."""

    why: str
    curve: Curve
    wanted: bool


@dataclass(frozen=True, slots=True)
class Fitness:
    """The judgements, their findings, and what more rows would do (None when that was not measured)."""

    domain: Judgement
    relevance: Judgement
    growth: Growth | None
    findings: tuple[Finding, ...]


def fitness(
    parts: Parts, traffic: Sequence[Example], *, rows: int, kind: str, vectorise: Vectorise | None, seed: int = 0
) -> Fitness:
    """Judge training rows (`parts`, a sample of `rows` of them) against the requests of `traffic` or, in their place,
    the held-out rows given.

    Without `vectorise` (no table of word vectors) only the forms of labels and answers are judged.
    """
    domain, uncovered = _domain(parts, traffic, vectorise, seed)
    look = None
    if kind == "classification" and vectorise is not None:
        look = _Look.at(parts["train"], rows, vectorise, seed)
    relevance, strays = _relevance(parts["train"], kind, vectorise, look)
    growth = _growth(look) if look is not None else None
    return Fitness(domain, relevance, growth, (*uncovered, *strays))


@dataclass(frozen=True, slots=True)
class _Look:
    """The training rows that are looked at, a sample of `rows`, and what is computed of their texts once."""

    train: Sequence[Example]
    rows: int
    features: Features
    vectors: Floats
    seed: int

    @property
    def labels(self) -> list[str]:
        return [example.answer for example in self.train]

    @classmethod
    def at(cls, train: Sequence[Example], rows: int, vectorise: Vectorise, seed: int) -> _Look | None:
        """None where no word is in two texts: then nothing can be told."""
        texts = [example.text for example in train]
        try:
            return cls(train, rows, features_of(texts, seed), vectorise(texts), seed)
        except ValueError:
            return None


def detectable(test_rows: int) -> list[str]:
    """A sentence on the smallest difference of two ways that so many test rows can show; none if nothing can be."""
    least = smallest_detectable_difference(DIFFER_ON, test_rows, 0.05, binary=True)
    if least is None:
        return []
    return [
        f"two ways of doing the task that differ on {DIFFER_ON:.0%} of the rows can be told apart there from "
        f"{100 * least:.1f} points on (with {POWER:.0%} power)"
    ]


def _domain(
    parts: Parts, traffic: Sequence[Example], vectorise: Vectorise | None, seed: int
) -> tuple[Judgement, list[Finding]]:
    if vectorise is None:
        return Judgement("not-measured", "the table of word vectors is not on this machine"), []
    split: Split | None = None
    asked: Sequence[Example] = traffic
    what = "request"
    if not traffic:
        split = "test" if parts["test"] else "validation"
        asked, what = parts[split], f"{split} row"
    found = coverage([e.text for e in parts["train"]], [e.text for e in asked], vectorise, seed)
    cure = "give a file of real requests as data.traffic"
    if found is None:
        few = f"{FEWEST_ROWS} training rows and as many real requests are needed to see what your examples cover"
        return Judgement("not-measured", f"{few}; {cure}"), []
    stand_in = "" if traffic else f"; your {split} rows stand for real requests here, so {cure} if these differ"
    judgement = _judge_coverage(found, what, stand_in)
    if found.interval[0] <= 0:
        return judgement, []
    rows = refs([asked[row] for row in found.far])
    count = max(1, round(found.uncovered * found.requests))
    severity: Severity = "info" if judgement.status == "pass" else "warn"
    return judgement, [Finding("uncovered", severity, count, _uncovered(found, what), rows, split=split)]


def _judge_coverage(found: Coverage, what: str, stand_in: str) -> Judgement:
    if found.interval[0] <= 0:
        high = found.interval[1]
        why = f"of {plural(found.requests, what)}, no more are far from your examples than chance explains"
        return Judgement("pass", f"{why} (at most {high:.1%} beyond it){stand_in}")
    status = _status(found.uncovered, UNCOVERED_WARN, UNCOVERED_FAIL)
    return Judgement(status, _uncovered(found, what) + stand_in)


def _uncovered(found: Coverage, what: str) -> str:
    """`412 of 2,000 requests (21 %, 19 to 23) ask about things your examples do not cover: for example ...`"""
    count = max(1, round(found.uncovered * found.requests))
    low, high = found.interval
    share = f"{found.uncovered:.0%}, {100 * low:.0f} to {100 * high:.0f}"
    verb = "asks" if count == 1 else "ask"
    head = f"{count:,} of {plural(found.requests, what)} ({share}) {verb} about things your examples do not cover"
    if not found.gaps:
        return head
    groups = []
    for gap in found.gaps[:5]:
        about = ", ".join(gap.words) or "one thing"
        example = f": '{gap.examples[0]}'" if gap.examples else ""
        groups.append(f"{gap.requests:,} about {about}{example}")
    return f"{head}; for example {'; '.join(groups)}"


def _relevance(
    train: Sequence[Example], kind: str, vectorise: Vectorise | None, look: _Look | None
) -> tuple[Judgement, list[Finding]]:
    findings = [*(_spellings(train) if kind == "classification" else ()), *_forms(train)]
    status: Status = "warn" if findings else "pass"
    unmeasured = ""
    if kind != "classification":
        unmeasured = "whether rows are off-topic is only measured where answers are labels"
    elif vectorise is None:
        unmeasured = "whether rows are off-topic was not measured: the table of word vectors is not on this machine"
    elif (found := _off_topic(look)) is None:
        unmeasured = "whether rows are off-topic was not measured: "
        unmeasured += "that takes 200 rows, two labels, and texts that tell something about their labels"
    else:
        off, strays = found
        findings = [*strays, *findings]
        status = off if off != "pass" else status
    why = [finding.message for finding in findings]
    if unmeasured:
        why.append(unmeasured)
        status = status if findings else "not-measured"
    return Judgement(status, "; ".join(why) or "no row was found that does not belong to the task"), findings


def _off_topic(look: _Look | None) -> tuple[Status, list[Finding]] | None:
    """None where it cannot be told."""
    rows = None if look is None else off_topic(look.features, look.labels, look.vectors, look.seed)
    if look is None or rows is None:
        return None
    strays = [look.train[row] for row in rows]
    if not strays:
        return "pass", []
    status = _status(len(strays) / len(look.train), OFF_TOPIC_WARN, OFF_TOPIC_FAIL)
    message = _strays(strays, len(look.train), look.rows, few=status == "pass")
    severity: Severity = "info" if status == "pass" else "warn"
    return status, [Finding("off-topic", severity, len(strays), message, refs(strays), split="train")]


def _status(share: float, warn: float, fail: float) -> Status:
    return "fail" if share >= fail else "warn" if share >= warn else "pass"


def _strays(strays: Sequence[Example], looked_at: int, total: int, *, few: bool) -> str:
    of = f" of {looked_at:,} looked at" if looked_at < total else f" of {total:,}"
    shown = " and ".join(f"'{text}'" for text in showable([example.text for example in strays]))
    seem = plural(len(strays), f"train row{of} seems", f"train rows{of} seem")
    message = f"{seem} not to belong to the task (far from the others, and the label does not follow from the text)"
    if shown:
        message += f": for example {shown}"
    return message + ("; so few are found in clean data too" if few else "")


def _spellings(train: Sequence[Example]) -> list[Finding]:
    found = misspelt_labels([example.answer for example in train])
    if not found:
        return []
    shown = ", ".join(f"'{spelling.label}' for '{spelling.usual}'" for spelling in found[:5])
    more = f" and {len(found) - 5:,} more" if len(found) > 5 else ""
    rows = [train[row] for spelling in found for row in spelling.rows]
    message = f"{plural(len(found), 'label seems', 'labels seem')} to be another one spelt differently: {shown}{more}"
    return [Finding("label-spelling", "warn", len(found), message, refs(rows), split="train")]


def _forms(train: Sequence[Example]) -> list[Finding]:
    found = odd_forms([example.answer for example in train])
    findings = []
    for form, rows in found.items():
        are = plural(len(rows), "answer has", "answers have")
        message = f"{are} another form than nearly all others ({form})"
        findings.append(
            Finding("odd-answer-form", "warn", len(rows), message, refs([train[row] for row in rows]), split="train")
        )
    return findings


def _growth(look: _Look) -> Growth | None:
    curve = learning_curve(look.features, look.labels, look.rows, look.seed)
    if curve is None:
        return None
    low, high = curve.interval
    now = curve.points[-1]
    why = (
        f"twice as many rows are expected to add {100 * curve.gain:.1f} points ({100 * low:.1f} to {100 * high:.1f}) "
        f"to a plain classifier, which gets {now.score:.1%} right after {now.rows:,} rows"
    )
    return Growth(why, curve, low >= GAIN_WANTED)
