"""The audit: known flaws are found, counted and named, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneworth.data import (
    Audit,
    Example,
    Finding,
    Message,
    RowRef,
    Ruler,
    audit,
    input_key,
    normalise,
    read_examples,
)
from tuneworth.data.private import has_card, has_email, luhn
from tuneworth.task import Columns


def row(line: int, text: str, answer: str = "a", file: str = "train.csv") -> Example:
    return Example(f"{file}-{line}", (Message("user", text),), answer, file, line)


WORDS = {
    "a": ["horse", "garden", "yellow", "river", "summer", "bread", "window", "music", "friend", "dinner", "village"],
    "b": ["invoice", "account", "payment", "transfer", "bank", "interest", "credit", "deposit", "currency", "loan"],
}


def clean_rows(count: int, file: str = "train.csv") -> list[Example]:
    """Rows that have nothing to do with each other, but that words and labels go together."""
    rows = []
    for n in range(1, count + 1):
        random = Random(f"{file} {n}")
        words = random.choices(WORDS["ab"[n % 2]], k=10)
        rows.append(row(n, f"what about the {' '.join(words)} {random.randrange(10**6)}", "ab"[n % 2], file))
    return rows


def audited(
    train: list[Example],
    validation: list[Example] | None = None,
    test: list[Example] | None = None,
    kind: str = "classification",
) -> Audit:
    return audit(train, validation or [], test or [], kind=kind)


def codes(found: Audit) -> list[tuple[str, str | None, int]]:
    return [(finding.code, finding.split, finding.count) for finding in found.findings]


def only(found: Audit, code: str) -> Finding:
    (finding,) = [finding for finding in found.findings if finding.code == code]
    return finding


def lines(finding: Finding) -> list[int]:
    return [place.line for place in finding.rows]


def test_clean_rows_have_no_findings_and_pass():
    found = audited(clean_rows(400), clean_rows(50, "v.csv"), clean_rows(400, "t.csv"))
    assert found.findings == ()
    assert {name: answer.status for name, answer in found.answers.items()} == {
        "domain": "not-measured",
        "relevance": "not-measured",
        "quality": "pass",
        "size": "pass",
    }
    assert "within 4.9 points" in found.answers["size"].why


def test_duplicates_are_repeats_of_the_same_split_whatever_their_answer():
    train = [row(1, "Hello, you!"), row(2, "hello you", "b"), row(3, "other"), row(4, "HELLO - YOU?")]
    found = audited(train, test=[row(9, "x", file="t"), row(10, "x.", file="t")])
    duplicates = {finding.split: finding for finding in found.findings if finding.code == "duplicate-exact"}
    assert lines(duplicates["train"]) == [2, 4]
    assert lines(duplicates["test"]) == [10]
    assert duplicates["train"].repair is not None
    assert duplicates["test"].repair is None


def test_leaks_count_and_name_held_out_rows():
    train = [*clean_rows(30), row(40, "Leaked?"), row(41, "leaked")]
    validation = [*clean_rows(10, "v"), row(20, "LEAKED", file="v")]
    test = [*clean_rows(20, "t"), row(50, "leaked!", file="t"), row(51, "(leaked)", file="t")]
    found = audited(train, validation, test)
    leaks = [finding for finding in found.findings if finding.code == "leak-exact"]
    assert [(finding.split, lines(finding)) for finding in leaks] == [
        ("test", [50, 51]),
        ("test", [50, 51]),
        ("validation", [20]),
    ]
    assert leaks[0].message == "2 test rows are also in train"
    assert leaks[0].repair == "2 rows are removed from train; test stays as it is"


def test_contradictions_count_inputs_over_all_splits_and_name_all_their_rows():
    train = [*clean_rows(30), row(40, "Both", "a"), row(41, "both", "a")]
    found = audited(train, test=[row(50, "both!", "b", "t")])
    finding = only(found, "contradiction")
    assert (finding.count, finding.split, finding.severity) == (1, None, "warn")
    assert lines(finding) == [40, 41, 50]
    assert (
        only(audited(train, test=[row(50, "both!", "b", "t")], kind="generation"), "contradiction").severity == "info"
    )


def test_a_different_earlier_turn_makes_a_different_question():
    first = Example("1", (Message("user", "hi"), Message("assistant", "yes"), Message("user", "more")), "a", "f", 1)
    second = Example("2", (Message("user", "hi"), Message("assistant", "no"), Message("user", "more")), "b", "f", 2)
    third = Example("3", (Message("user", "Hi!"), Message("assistant", "No."), Message("user", "more")), "c", "f", 3)
    found = audited([first, second, third], kind="generation")
    assert lines(only(found, "contradiction")) == [2, 3]


def test_too_long_rows_and_lengths_are_measured_with_the_given_counter():
    train = [row(n, "x" * n) for n in range(1, 101)]
    test = [row(1, "y" * 95, file="t")]
    found = audit(train, [], test, kind="generation", ruler=Ruler(lambda rows: [len(e.text) for e in rows], 90))
    assert found.tokens == {"min": 1, "p50": 51, "p95": 95, "max": 100, "rows": 101, "context": 90}
    by_split = {finding.split: finding for finding in found.findings if finding.code == "too-long"}
    assert lines(by_split["train"]) == list(range(91, 101))
    assert by_split["test"].repair is None
    assert audit(train, [], test, kind="generation").tokens is None


def test_classes_are_counted_and_uneven_rare_and_missing_ones_reported():
    train = [row(n, f"q{n}", "big") for n in range(100)] + [row(n, f"r{n}", "small") for n in range(100, 103)]
    test = [row(n, f"s{n}", "new", "t") for n in range(4)] + [row(9, "s9", "big", "t")]
    found = audited(train, test=test)
    assert codes(found) == [
        ("imbalance", "train", 2),
        ("rare-class", "train", 1),
        ("class-missing-in-train", None, 1),
        ("class-missing-in-test", "test", 1),
    ]
    assert lines(only(found, "rare-class")) == [100, 101, 102]
    assert lines(only(found, "class-missing-in-train")) == [0, 1, 2, 3]
    assert found.classes["big"] == {"train": 100, "validation": 0, "test": 1}
    assert list(found.classes) == ["big", "new", "small"]
    assert "97%" in only(found, "imbalance").message
    assert audited(train, test=test, kind="generation").classes == {}


@pytest.mark.parametrize(
    ("text", "email", "card"),
    [
        ("mail me at jo.doe+x@mail.example.co.uk please", True, False),
        ("@jo thanks, see you @ 5", False, False),
        ("my card is 4111 1111 1111 1111 ok", False, True),
        ("card 4111-1111-1111-1112", False, False),
        ("5500005555555559", False, True),
        ("order 1234567890123456", False, False),
        ("call 07123 456 789", False, False),
        ("ids 94111111111111111111111", False, False),
    ],
)
def test_private_data_is_recognised(text, email, card):
    assert (has_email(text), has_card(text)) == (email, card)


def test_private_data_is_named_by_row_and_never_shown():
    train = [*clean_rows(30), row(40, "I am jo@example.org"), row(41, "pay with", "4111111111111111")]
    found = audited(train, kind="generation")
    assert lines(only(found, "pii-email")) == [40]
    assert lines(only(found, "pii-card")) == [41]
    assert "example.org" not in json.dumps(found.to_json())
    assert "4111" not in json.dumps(found.to_json())


@given(st.text("0123456789", min_size=12, max_size=18))
def test_exactly_one_check_digit_makes_a_number_valid(digits):
    assert sum(luhn(digits + check) for check in "0123456789") == 1


def test_text_that_looks_like_control_tokens_is_reported():
    found = audited([*clean_rows(30), row(40, "hello <|im_end|>"), row(41, "a <b> c")])
    assert lines(only(found, "special-token")) == [40]
    assert found.answers["quality"].status == "pass"


def test_grave_flaws_fail_quality_and_few_rows_fail_size():
    found = audited([row(n, "same", "ab"[n % 2]) for n in range(40)], test=clean_rows(10, "t"))
    assert found.answers["quality"].status == "fail"
    assert found.answers["size"].status == "fail"
    assert "1 input has different answers in 40 rows" in found.answers["quality"].why


def test_rows_dropped_in_reading_are_part_of_the_audit():
    empty = Finding(
        "empty-input", "warn", 1, "1 row of train with an empty input", (RowRef("f", 3),), "left out", "train"
    )
    found = audit(clean_rows(300), [], [], kind="classification", dropped=[empty])
    assert found.findings == (empty,)
    assert found.answers["quality"].status == "warn"


def test_json_has_the_shape_of_the_contract_and_lists_at_most_a_hundred_rows():
    found = audited([row(n, "same") for n in range(1, 252)], test=clean_rows(3, "t"))
    document = json.loads(json.dumps(found.to_json()))
    assert document["schema"] == "tuneworth.audit/1"
    assert document["rows"] == {"train": 251, "validation": 0, "test": 3}
    assert set(document["answers"]) == {"domain", "relevance", "quality", "size"}
    assert all(answer["why"] for answer in document["answers"].values())
    assert "NFC" in document["normalisation"]
    (finding,) = [f for f in document["findings"] if f["code"] == "duplicate-exact"]
    assert finding["count"] == 250
    assert len(finding["rows"]) == 100
    assert finding["rows"][0] == {"file": "train.csv", "line": 2, "id": "train.csv-2"}
    assert {"code", "severity", "count", "message", "rows", "repair"} <= set(finding)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Hello, World!", "hello world", True),
        ("a-b", "a b", True),
        ("ab", "a b", False),
        ("don\u2019t", "don't", True),
        ("\u00c9t\u00e9", "e\u0301te\u0301", True),
        ("H\u0331", "\u1e96", True),
        ("cost: $5", "cost 5", True),
        ("a\u0093quote", "a quote", True),
        ("great \U0001f600", "great \U0001f621", False),
        ("  tabs\tand\n lines ", "tabs and lines", True),
        ("stra\u00dfe", "strasse", False),
    ],
)
def test_normal_form(one, other, same):
    assert (normalise(one) == normalise(other)) is same


@given(st.text(max_size=40))
def test_normal_form_is_stable_and_the_same_for_both_unicode_forms(text):
    once = normalise(text)
    assert normalise(once) == once
    assert once == normalise(unicodedata.normalize("NFD", text))
    assert "  " not in once
    assert once == once.strip()


def test_banking77_has_the_known_flaws(shared_data: Path):
    train = read_examples(shared_data / "banking77" / "train.csv", Columns(), "auto")
    test = read_examples(shared_data / "banking77" / "test.csv", train.shape.columns, train.shape.kind, "test")
    found = audit(train.examples, [], test.examples, kind=train.shape.kind)
    known = ("leak-exact", "duplicate-exact", "contradiction")
    assert [finding for finding in codes(found) if finding[0] in known] == [
        ("leak-exact", "test", 25),
        ("duplicate-exact", "train", 31),
        ("duplicate-exact", "test", 4),
        ("contradiction", None, 2),
    ]
    assert {code for code, _, _ in codes(found)} - set(known) == {
        "leak-near", "duplicate-near", "contradiction-near", "label-doubtful",
    }  # fmt: skip
    contradictory = {
        normalise(e.text) for e in (*train.examples, *test.examples) if RowRef.of(e) in found.rows_of("contradiction")
    }
    assert contradictory == {"has my top up gone through", "what are the fees for top ups"}
    assert found.rows == {"train": 10003, "validation": 0, "test": 3080}
    assert len(found.classes) == 77
    assert all(counts["test"] == 40 for counts in found.classes.values())
    named = {(place.file, place.line) for place in found.rows_of("leak-exact")}
    keys = {input_key(example) for example in train.examples}
    assert named == {(e.file, e.line) for e in test.examples if input_key(e) in keys}


def test_sms_spam_has_the_known_duplicates_and_balance(shared_data: Path):
    reading = read_examples(shared_data / "sms_spam" / "sms.tsv", Columns(input="2", output="1"), "auto")
    found = audit(reading.examples, [], [], kind=reading.shape.kind)
    assert found.count("duplicate-exact", "train") == 444
    assert {label: counts["train"] for label, counts in found.classes.items()} == {"ham": 4827, "spam": 747}
    assert "87% of train" in only(found, "imbalance").message


def test_snips_leaks_and_duplicates_are_known(shared_data: Path):
    folder = shared_data / "snips_nlu" / "slotgated_split"
    parts = []
    for split in ("train", "test"):
        texts = (folder / split / "seq.in").read_text().splitlines()
        labels = (folder / split / "label").read_text().splitlines()
        parts.append([row(n, *pair, split) for n, pair in enumerate(zip(texts, labels, strict=True), 1)])
    found = audited(parts[0], test=parts[1])
    assert found.count("leak-exact", "test") == 26
    assert found.count("duplicate-exact", "train") == 225


def test_glaive_has_the_known_repeated_conversations(shared_data: Path):
    reading = read_examples(shared_data / "glaive_toolcall_demo" / "glaive_toolcall_en_demo.json", Columns(), "auto")
    found = audit(reading.examples, [], [], kind=reading.shape.kind)
    assert "35 of them with the same answer" in only(found, "duplicate-exact").message


def test_pandalm_answers_are_grouped_by_their_instruction(shared_data: Path):
    path = shared_data / "pandalm_pref" / "testset-v1.json"
    reading = read_examples(path, Columns(), "auto")
    found = audit(reading.examples, [], [], kind=reading.shape.kind)
    # Of the 170 instructions 12 have only rows without a winner, which are left out and named.
    rows = json.loads(path.read_text())
    assert len({r["instruction"] for r in rows}) == 170
    kept = {place.line for place in (RowRef.of(e) for e in reading.examples)}
    assert only(found, "groups").count == 158 == len({e.group for e in reading.examples})
    assert len(kept) == 893


def pair(line: int, better: str, worse: str, text: str = "Which tea is best?") -> Example:
    return dataclasses.replace(row(line, text, better), rejected=Message("assistant", worse))


def test_several_pairs_of_one_question_are_no_flaw_but_equal_and_turned_pairs_are():
    several = [pair(n, f"green tea number {n}", "none at all") for n in range(1, 60)]
    assert codes(audited(several, kind="preference")) == []
    found = audited([*several, pair(60, "none at all", "green tea number 7"), several[3]], kind="preference")
    assert codes(found) == [("duplicate-exact", "train", 1), ("contradiction", None, 1)]
    assert sorted(lines(only(found, "contradiction"))) == [7, 60]
    assert lines(only(found, "duplicate-exact")) == [4]
