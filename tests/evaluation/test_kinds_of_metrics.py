"""Labels, sets of labels, objects, texts, calls, pairs: numbers against hand-made ones, and answers that are none."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, hamming_loss

from evaluation.rows import judged, raw, row
from tuneworth.data import Example, Message, ToolCall
from tuneworth.errors import InputError
from tuneworth.evaluation.metrics import choose_metric, metric_names
from tuneworth.evaluation.metrics.calibration import calibration
from tuneworth.evaluation.metrics.chats import repeats_itself, speaks_for_others
from tuneworth.evaluation.metrics.jsontext import parse_json
from tuneworth.evaluation.metrics.labels import parse_label
from tuneworth.evaluation.metrics.objects import field_f1, same
from tuneworth.evaluation.metrics.schemas import derived_schema, described, validator, why_invalid
from tuneworth.evaluation.records import RawAnswer
from tuneworth.task import Task

KINDS = ("classification", "multilabel", "extraction", "generation", "reasoning", "chat", "tools", "preference")


# --- labels ---


@pytest.mark.parametrize(
    ("text", "label"),
    [("Card", "Card"), ("card", "card"), ("CARD", None), ("card arrival", "card arrival"), ("card.", None)],
)
def test_labels_that_differ_only_in_case_are_told_apart_by_spelling_alone(text: str, label: str | None) -> None:
    assert parse_label(text, ("Card", "card", "card arrival")) == label


def test_macro_f1_is_that_of_the_definition() -> None:
    labels = ("a", "b", "none")
    rows = [
        (row("a"), raw("a", confidence=0.95)),
        (row("a"), raw("b", confidence=0.55)),
        (row("b"), raw("b", confidence=0.95)),
        (row("none"), raw("a", confidence=0.55)),
    ]
    _, totals = judged("classification", rows, labels)
    wanted, given_ = ["a", "a", "b", "none"], ["a", "b", "b", "a"]
    assert totals["macro_f1"] == pytest.approx(f1_score(wanted, given_, average="macro"))
    assert totals["none_of_these"] == {"label": "none", "rows": 1, "recall": 0.0, "precision": None}


def test_none_of_these_is_reported_only_where_a_label_says_so() -> None:
    assert "none_of_these" not in judged("classification", [(row("a"), raw("a"))], ("a", "b"))[1]


def test_calibration_is_that_of_the_definition_in_bins_of_how_sure_an_answer_was() -> None:
    rows = [
        (row("a"), raw("a", confidence=0.95)),
        (row("a"), raw("b", confidence=0.55)),
        (row("b"), raw("b", confidence=1.0)),
        (row("b"), raw("a", confidence=0.51)),
    ]
    found = calibration(judged("classification", rows, ("a", "b"))[0], "scored")
    # Two bins of two rows: |1 - 0.975| and |0 - 0.53|, each weighted by a half.
    assert found["error"] == pytest.approx((0.025 + 0.53) / 2)
    assert [(one["low"], one["rows"], one["right"]) for one in found["bins"]] == [(0.5, 2, 0), (0.9, 2, 1)]
    assert [one["confidence"] for one in found["bins"]] == pytest.approx([0.53, 0.975])
    assert (found["rows"], found["why"]) == (4, None)


def test_calibration_of_preferences_follows_the_margin_and_a_failed_row_does_not_count() -> None:
    surely = math.log(0.9 / 0.1)
    rows = [(row("a", n), raw(text, margin=m)) for n, (text, m) in enumerate((("better", surely), ("worse", -surely)))]
    failed = RawAnswer("", "error", "", 0, 0, 0.0, "too long")
    found = calibration(judged("preference", [*rows, (row("a", 2), failed)])[0], "scored")
    assert (found["rows"], len(found["bins"])) == (2, 1)
    assert found["error"] == pytest.approx(0.9 - 0.5)


@pytest.mark.parametrize(
    ("decoding", "parts", "why"),
    [("constrained", {"confidence": 0.9}, "tells no probability"), ("scored", {}, "tells no probabilities")],
)
def test_without_probabilities_of_labels_calibration_is_not_measured(
    decoding: Any, parts: dict[str, float], why: str
) -> None:
    found = calibration(judged("classification", [(row("a"), raw("a", **parts))], ("a", "b"))[0], decoding)
    assert (found["error"], found["rows"], found["bins"]) == (None, 0, [])
    assert why in found["why"]


SETS = st.lists(st.sampled_from("abc"), unique=True)


@given(st.lists(st.tuples(SETS, SETS), min_size=1, max_size=8))
def test_label_sets_are_measured_as_scikit_learn_does(pairs: list[tuple[list[str], list[str]]]) -> None:
    rows = [(row(json.dumps(w), n), raw(json.dumps(g))) for n, (w, g) in enumerate(pairs)]
    answers, totals = judged("multilabel", rows, ("a", "b", "c"))
    wanted, given_ = ([[label in side for label in "abc"] for side in sides] for sides in zip(*pairs, strict=True))
    theirs = f1_score(wanted, given_, average="samples", zero_division=1.0)
    assert sum(a.score for a in answers) / len(answers) == pytest.approx(theirs) == totals["f1"]
    assert totals["micro_f1"] == pytest.approx(f1_score(wanted, given_, average="micro", zero_division=1.0))
    assert totals["hamming_loss"] == pytest.approx(hamming_loss(wanted, given_))


def test_unknown_labels_and_broken_lists_are_named_and_never_right() -> None:
    rows = [
        (row('["a"]', 0), raw('["A", "zebra"]')),
        (row("[]", 1), raw("a, b")),
        (row("[]", 2), raw("```json\n[]\n```")),
        (row('["a"]', 3), raw('["a"', "length")),
    ]
    answers, totals = judged("multilabel", rows, ("a", "b"))
    assert [a.parsed for a in answers] == ['["a", "zebra"]', None, "[]", None]
    assert [a.score for a in answers] == [pytest.approx(2 / 3), 0, 1, 0]
    assert (totals["unknown_labels"], totals["unknown_labels_named"]) == (1, {"zebra": 1})
    assert totals["exact_set"] == 0.25


# --- objects ---


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, True),
        ({"a": "x  y"}, {"a": "x y"}, True),
        ({"a": "é"}, {"a": "e\u0301"}, True),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": None}, {}, False),
        ({"a": "X"}, {"a": "x"}, False),
    ],
)
def test_objects_are_equal_by_value(one: Any, other: Any, equal: bool) -> None:
    assert same(one, other) is equal


def test_fields_are_counted_by_path_and_items_of_lists_in_any_order() -> None:
    wanted = {"intent": "play", "slots": {"artist": ["a", "b"], "year": "1999"}}
    given_ = {"intent": "play", "slots": {"artist": ["b", "c"], "genre": "x"}}
    assert field_f1(given_, wanted) == pytest.approx(2 * 2 / (4 + 4))
    assert field_f1({}, {}) == 1
    rows = [(row(json.dumps(wanted), 0), raw(json.dumps(given_))), (row(json.dumps(wanted), 1), raw("sorry"))]
    answers, totals = judged("extraction", rows, schema=derived_schema([wanted]))
    assert [a.score for a in answers] == [0, 0]
    fields = {field["field"]: field for field in totals["fields"]}
    assert (fields["slots.artist"]["precision"], fields["slots.artist"]["recall"]) == (0.5, 0.25)
    assert (fields["intent"]["precision"], fields["intent"]["recall"]) == (1, 0.5)
    assert totals["schema_valid"] == 0
    assert "no JSON object" in totals["why_invalid"]
    assert totals["field_f1"] == 0.25
    assert judged("extraction", rows, metric="field-f1")[0][0].score == pytest.approx(0.5)


@pytest.mark.parametrize(
    "text", ['{"a": 1} thanks', '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": 1', "null", "[" * 100_000]
)
def test_what_is_not_strictly_json_is_no_answer(text: str) -> None:
    assert parse_json(text) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON, min_size=1, max_size=6))
def test_a_derived_schema_fits_all_that_it_was_derived_from(values: list[Any]) -> None:
    schema = derived_schema(values)
    checker = validator(schema)
    assert [why_invalid(value, checker) for value in values] == [None] * len(values)
    assert isinstance(described(schema), str)


def test_a_derived_schema_refuses_what_was_never_seen_and_is_told_in_lines() -> None:
    values = [{"intent": "play" if n % 2 else "stop", "slots": {"year": f"{n}"} if n else {}} for n in range(40)]
    schema = derived_schema(values)
    checker = validator(schema)
    assert why_invalid({"intent": "dance", "slots": {}}, checker) is not None
    assert why_invalid({"intent": "play", "slots": {"made_up": "x"}}, checker) is not None
    assert why_invalid({"slots": {}}, checker) is not None
    assert described(schema) == '- intent: one of "play", "stop"\n- slots.year: text, if there is one'


# --- texts ---


def test_the_best_of_several_references_counts_and_corpus_numbers_use_all() -> None:
    wanted = row("a summary about something else", references=("the cat sat on the mat",))
    (answer,), totals = judged("generation", [(wanted, raw("the cat sat on the mat"))])
    assert answer.score == pytest.approx(1)
    assert totals["bleu"] == pytest.approx(1)
    assert totals["chrf"] == pytest.approx(1)
    assert (totals["rouge_1"], totals["exact_match"], totals["length_ratio"]) == (pytest.approx(1), 1, 1)
    assert totals["references_per_row"] == 2


def test_rows_with_fewer_references_change_nothing_for_others() -> None:
    pairs = [
        (row("a b c d e", 0, references=("f g h i j",)), raw("a b c d e")),
        (row("k l m n o", 1), raw("k l m n o")),
    ]
    _, totals = judged("generation", pairs)
    assert totals["bleu"] == pytest.approx(1)


def test_an_empty_text_scores_nothing_in_every_metric() -> None:
    for name in metric_names("generation"):
        (answer,), totals = judged("generation", [(row("words"), raw("  "))], metric=name)
        assert (answer.score, answer.parsed) == (0, None)
        assert totals["length_ratio"] == 0


def test_replies_are_checked_for_form() -> None:
    assert speaks_for_others("Sure.\nUser: and then?")
    assert not speaks_for_others("The user said so.")
    assert repeats_itself("this is what we do every day " * 4)
    assert not repeats_itself("once upon a time there was a fox and a hen and a farmer")


# --- calls ---

TOOLS = json.dumps([{"type": "function", "function": {"name": name}} for name in ("find", "book")])


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(f"c-{name}", name, json.dumps(arguments))


def block(name: str, **arguments: Any) -> str:
    return "<tool_call>\n" + json.dumps({"name": name, "arguments": arguments}) + "\n</tool_call>"


def calling(*calls: ToolCall, answer: str = "", number: int = 0) -> Example:
    return replace(row(answer, number), calls=calls, tools=TOOLS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (block("find", q="x", n=1), 1),
        (block("find", n=1.0, q="x"), 1),
        ('{"name": "find", "parameters": {"q": "x", "n": 1}}', 1),
        ('[{"name": "find", "arguments": "{\\"q\\": \\"x\\", \\"n\\": 1}"}]', 1),
        ("I look it up.\n" + block("find", q="x", n=1), 1),
        (block("find", q="y", n=1), 0),
        (block("book", q="x", n=1), 0),
        (block("find", q="x", n=1) * 2, 0),
        ("I cannot.", 0),
        ('<tool_call>{"name": "find", "argum', 0),
    ],
)
def test_calls_are_right_by_name_and_arguments(text: str, value: float) -> None:
    (answer,), _ = judged("tools", [(calling(call("find", q="x", n=1)), raw(text))])
    assert answer.score == value


def test_parallel_calls_may_stand_in_any_order() -> None:
    wanted = calling(call("find", q="x"), call("book", id=3))
    (answer,), totals = judged("tools", [(wanted, raw(block("book", id=3) + block("find", q="x")))])
    assert (answer.score, totals["parallel_calls_right"]) == (1, 1)


def test_abstention_needless_missed_broken_and_unknown_calls_are_told_apart() -> None:
    rows = [
        (calling(answer="Hello.", number=0), raw("Hello there.")),
        (calling(answer="Hello.", number=1), raw(block("find", q="x"))),
        (calling(answer="Hello.", number=2), raw("")),
        (calling(call("find", q="x"), number=3), raw("What do you mean?")),
        (calling(call("find", q="x"), number=4), raw(block("find", q="y"))),
        (calling(call("find", q="x"), number=5), raw("<tool_call>{broken</tool_call>")),
        (calling(call("find", q="x"), number=6), raw(block("fetch", q="x"))),
    ]
    answers, totals = judged("tools", rows)
    assert [a.score for a in answers] == [1, 0, 0, 0, 0, 0, 0]
    assert [a.parsed is None for a in answers] == [False, False, True, False, False, True, False]
    assert (totals["rows_that_call"], totals["right_tools"], totals["right_arguments"]) == (4, 0.25, 0)
    assert (totals["right_abstention"], totals["needless_calls"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (totals["missed_calls"], totals["valid_json"]) == (0.25, 0.75)
    assert (totals["unknown_tools"], totals["unknown_tools_named"]) == (1, {"fetch": 1})


# --- pairs ---


def test_pairs_are_right_by_the_sign_of_the_margin_and_a_tie_is_half_right() -> None:
    pair = replace(row("good, long"), rejected=Message("assistant", "bad"))
    rows = [(pair, raw("better", margin=2.0)), (pair, raw("worse", margin=-1.0)), (pair, raw("tie", margin=0.0))]
    answers, totals = judged("preference", rows)
    assert [a.score for a in answers] == [1, 0, 0.5]
    assert (totals["pair_accuracy"], totals["mean_margin"]) == (0.5, pytest.approx(1 / 3))
    assert totals["better_answer_is_longer"] == 1


# --- all kinds ---


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(max_size=40), finish=st.sampled_from(["stop", "length"]))
def test_any_text_gets_a_score_in_0_to_1_and_a_failed_call_none(kind: str, text: str, finish: str) -> None:
    answer = {"multilabel": '["a"]', "extraction": '{"a": "b"}', "classification": "a"}.get(kind, "a b 5")
    example = replace(row(answer), rejected=Message("assistant", "worse"), tools=TOOLS if kind == "tools" else "")
    for name in metric_names(kind):
        rows = [(example, raw(text, finish)), (example, raw(answer, "error", "timed out"))]
        (given_, failed), totals = judged(kind, rows, ("a", "b"), name)
        assert 0 <= given_.score <= 1
        assert (failed.score, failed.parsed, failed.error) == (0, None, "timed out")
        assert totals


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_metric_is_refused_with_those_of_the_kind(kind: str) -> None:
    with pytest.raises(InputError, match=f"'f2' is no metric for answers of kind {kind}") as raised:
        choose_metric(Task(metric="f2"), kind, ("a",))
    assert metric_names(kind)[0] in raised.value.problems[0].cure
