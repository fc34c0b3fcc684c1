"""The audit's checks: each looks at the splits and returns a Finding for each kind of flaw and split."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from tuneworth.data.example import Example
from tuneworth.data.findings import Finding, Severity, Split, plural, refs
from tuneworth.data.normalising import input_key

Parts = Mapping[Split, Sequence[Example]]
"""The examples of each split; a split that is not there yet is empty."""

TOO_MANY = 0.2
"""Share of rows from which a flaw is no longer a blemish but makes the data unfit."""
FEW_IN_CLASS = 5
"""Classes with fewer train rows are reported as rare."""
UNEVEN = 10
"""How many times larger than the smallest the largest class may be before that is a warning."""

_LEARNT_AND_HELD_OUT: tuple[tuple[Split, Split], ...] = (
    ("train", "test"),
    ("validation", "test"),
    ("train", "validation"),
)
_EMAIL = re.compile(r"[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")
_CARD = re.compile(r"(?<![\d.])[2-6]\d(?:[ -]?\d){11,17}(?![\d])")
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>|</?think>")


def keys_of(parts: Parts) -> dict[Split, list[str]]:
    """The normalised input of every row, in the order of the rows."""
    return {split: [input_key(example) for example in examples] for split, examples in parts.items()}


def duplicates(parts: Parts, keys: Mapping[Split, Sequence[str]]) -> list[Finding]:
    """Rows whose input repeats that of an earlier row of the same split, whatever their answers are."""
    findings = []
    for split, examples in parts.items():
        seen: set[str] = set()
        repeats = []
        for example, key in zip(examples, keys[split], strict=True):
            if key in seen:
                repeats.append(example)
            seen.add(key)
        if repeats:
            verb = plural(len(repeats), f"row of {split} repeats", f"rows of {split} repeat")
            message = f"{verb} the input of an earlier one"
            severity: Severity = "warn" if len(repeats) > TOO_MANY * len(examples) else "info"
            repair = "reduced to the first row where the answers agree too" if split == "train" else None
            findings.append(Finding("duplicate-exact", severity, len(repeats), message, refs(repeats), repair, split))
    return findings


def leaks(parts: Parts, keys: Mapping[Split, Sequence[str]]) -> list[Finding]:
    """Held-out rows that are also where rows are learnt or chosen from. Counts and names held-out rows."""
    findings = []
    for earlier, later in _LEARNT_AND_HELD_OUT:
        known = set(keys[earlier])
        leaked = [e for e, key in zip(parts[later], keys[later], strict=True) if key in known]
        if not leaked:
            continue
        held_out = set(keys[later])
        source = sum(key in held_out for key in keys[earlier])
        severity: Severity = "error" if len(leaked) > TOO_MANY * len(parts[later]) else "warn"
        message = f"{plural(len(leaked), f'{later} row is', f'{later} rows are')} also in {earlier}"
        repair = f"{plural(source, 'row is', 'rows are')} removed from {earlier}; {later} stays as it is"
        findings.append(Finding("leak-exact", severity, len(leaked), message, refs(leaked), repair, later))
    return findings


def contradictions(parts: Parts, keys: Mapping[Split, Sequence[str]], kind: str) -> list[Finding]:
    """Inputs with different answers, over all splits together. Counts inputs, names every row of theirs."""
    rows: dict[str, list[Example]] = defaultdict(list)
    for split, examples in parts.items():
        for example, key in zip(examples, keys[split], strict=True):
            rows[key].append(example)
    split_minds = [same for same in rows.values() if len({example.answer.strip() for example in same}) > 1]
    if not split_minds:
        return []
    concerned = [example for same in split_minds for example in same]
    severity: Severity = "info"  # free text may well have several good answers
    if kind == "classification":
        total = sum(map(len, parts.values()))
        severity = "error" if len(concerned) > TOO_MANY * total else "warn"
    inputs = plural(len(split_minds), "input has", "inputs have")
    message = f"{inputs} different answers in {plural(len(concerned), 'row')}; nothing can get all of these right"
    return [Finding("contradiction", severity, len(split_minds), message, refs(concerned))]


def too_long(parts: Parts, lengths: Mapping[Split, Sequence[int]], context_tokens: int) -> list[Finding]:
    """Rows that, prompt and answer together, do not fit into the model's context."""
    findings = []
    for split, examples in parts.items():
        long = [e for e, length in zip(examples, lengths[split], strict=True) if length > context_tokens]
        if not long:
            continue
        severity: Severity = "error" if len(long) > TOO_MANY * len(examples) else "warn"
        verb = plural(len(long), f"{split} row exceeds", f"{split} rows exceed")
        message = f"{verb} the model's context of {context_tokens:,} tokens"
        repair = "left out; answers are never cut" if split != "test" else None
        findings.append(Finding("too-long", severity, len(long), message, refs(long), repair, split))
    return findings


def balance(parts: Parts) -> list[Finding]:
    """How even the classes of train are, which are rare, and which are missing on one side."""
    rows: dict[str, list[Example]] = defaultdict(list)
    for example in parts["train"]:
        rows[example.answer].append(example)
    if not rows:
        return []
    counts = Counter({label: len(examples) for label, examples in rows.items()})
    findings = []
    (largest, most), (smallest, least) = counts.most_common()[0], counts.most_common()[-1]
    if most >= UNEVEN * least or most > (1 - TOO_MANY) * len(parts["train"]):
        share = most / len(parts["train"])
        classes = plural(len(counts), "class", "classes")
        sizes = f"'{largest}' has {plural(most, 'row')} ({share:.0%} of train), '{smallest}' has {least:,}"
        message = f"{classes} of uneven size: {sizes}"
        findings.append(Finding("imbalance", "warn", len(counts), message, split="train"))
    rare = [label for label, count in counts.items() if count < FEW_IN_CLASS]
    if rare:
        classes = plural(len(rare), "class has", "classes have")
        message = f"{classes} fewer than {FEW_IN_CLASS} train rows: {_some(rare)}"
        concerned = refs([example for label in rare for example in rows[label]])
        findings.append(Finding("rare-class", "warn", len(rare), message, concerned, split="train"))
    return findings + _missing(parts, set(rows))


def _missing(parts: Parts, learnt: set[str]) -> list[Finding]:
    findings = []
    held_out = [example for split in ("validation", "test") for example in parts[split]]
    unknown = [example for example in held_out if example.answer not in learnt]
    if unknown:
        labels = sorted({example.answer for example in unknown})
        message = f"{plural(len(labels), 'class is', 'classes are')} not in train: {_some(labels)}"
        findings.append(Finding("class-missing-in-train", "warn", len(labels), message, refs(unknown)))
    tested = {example.answer for example in parts["test"]}
    if tested and learnt - tested:
        labels = sorted(learnt - tested)
        message = f"{plural(len(labels), 'class is', 'classes are')} not in test: {_some(labels)}"
        findings.append(Finding("class-missing-in-test", "warn", len(labels), message, split="test"))
    return findings


def private_data(parts: Parts) -> list[Finding]:
    """E-mail addresses and card numbers (13 to 19 digits, valid check digit). Messages never show them."""
    return [
        *_matching(parts, "pii-email", "warn", "an e-mail address", has_email),
        *_matching(parts, "pii-card", "warn", "what looks like a payment card number", has_card),
    ]


def special_tokens(parts: Parts) -> list[Finding]:
    """Text that looks like a model's control tokens. It is encoded as plain text everywhere."""
    return _matching(parts, "special-token", "info", "text that looks like a control token", _SPECIAL.search)


def has_email(text: str) -> bool:
    """Whether a text holds an e-mail address."""
    return "@" in text and _EMAIL.search(text) is not None


def has_card(text: str) -> bool:
    """Whether a text holds a number with the length, first digit and check digit (Luhn) of a payment card."""
    return any(luhn(re.sub(r"[ -]", "", match.group())) for match in _CARD.finditer(text))


def luhn(digits: str) -> bool:
    """The check digit test of ISO/IEC 7812-1."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _matching(
    parts: Parts, code: str, severity: Severity, what: str, matches: Callable[[str], object]
) -> list[Finding]:
    found = [
        example
        for examples in parts.values()
        for example in examples
        if any(matches(text) for text in (*(message.content for message in example.messages), example.answer))
    ]
    if not found:
        return []
    holding = plural(len(found), "row holds", "rows hold")
    return [Finding(code, severity, len(found), f"{holding} {what}", refs(found))]


def _some(labels: Sequence[str]) -> str:
    shown = ", ".join(f"'{label}'" for label in labels[:10])
    return shown if len(labels) <= 10 else f"{shown} and {len(labels) - 10:,} more"
