"""The rule of the verdict: every kind is reached, false alarms stay rare, and what must not matter does
not.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from deciding import PRICE, arm, right, verdict
from hypothesis import given
from hypothesis import strategies as st

from tuneworth.decision import ArmResult, CurvePoint, Forgetting, LearningCurve, Probes, TokenPrice, decide
from tuneworth.decision.looks import confidence_after
from tuneworth.task import Decision

KEYS = {
    "schema",
    "verdict",
    "winner",
    "why",
    "metric",
    "test_rows",
    "minimum_effect",
    "confidence",
    "looks_at_test",
    "provenance",
    "arms",
    "comparisons",
    "break_even",
    "cost_curve",
    "learning_curve",
    "power",
    "meanwhile",
    "sensitivity",
    "saving",
    "test_groups",
}
ARM_KEYS = {
    "name",
    "family",
    "model",
    "decoding",
    "status",
    "score",
    "interval",
    "input_tokens",
    "output_tokens",
    "seconds",
    "usd_per_1k_requests",
    "usd_per_1k_correct",
    "usd_to_build",
    "truncated",
    "empty",
    "invalid",
    "robustness",
    "forgetting",
    "out_of_scope",
    "token_price",
    "at_once",
}


def test_a_clearly_better_fine_tuned_arm_wins() -> None:
    found = verdict([arm("zero", "prompt", right(40, 200)), arm("lora", "fine-tune", right(160, 200), usd_to_build=5)])
    assert (found.kind, found.winner) == ("fine-tune", "lora")
    assert "Use lora" in found.why[0] and "80.0 %" in found.why[0]


def test_a_prompt_that_is_as_good_and_cheaper_wins() -> None:
    found = verdict(
        [arm("lora", "fine-tune", right(901, 1000), usd_to_build=50), arm("few", "prompt", right(900, 1000))],
        minimum_effect=0.02,
    )
    assert (found.kind, found.winner) == ("prompt", "few")
    assert "less than 2.0 points worse than the best arm, lora" in found.why[0]


def test_a_classical_arm_that_is_as_good_and_cheaper_is_the_simpler_model() -> None:
    tfidf = arm("tfidf", "classical", right(898, 1000), machine_seconds_per_request=0.0001)
    found = verdict([arm("lora", "fine-tune", right(900, 1000)), tfidf], minimum_effect=0.02)
    assert (found.kind, found.winner) == ("simpler-model", "tfidf")


def test_a_cheaper_arm_that_may_be_as_good_leaves_not_enough_evidence() -> None:
    found = verdict([arm("lora", "fine-tune", right(83, 100), usd_to_build=9), arm("few", "prompt", right(80, 100, 5))])
    assert (found.kind, found.winner) == ("not-enough-evidence", None)
    assert found.rows_to_decide is not None and found.rows_to_decide > 100
    assert "cannot tell whether few is as good as lora" in found.why[0]
    assert "test rows would decide" in found.why[0]


def test_an_undetermined_arm_of_the_same_family_does_not_hold_up_the_verdict() -> None:
    found = verdict([arm("few", "prompt", right(83, 100)), arm("zero", "prompt", right(80, 100, 5))])
    assert (found.kind, found.winner) == ("prompt", "few")
    assert any("prompting too, so the verdict stands" in sentence for sentence in found.why)


def test_a_dearer_arm_that_may_be_better_by_what_matters_holds_up_the_verdict() -> None:
    dear = arm("lora", "fine-tune", right(80, 100, 5), usd_to_build=50)
    found = verdict([arm("few", "prompt", right(83, 100)), dear])
    assert (found.kind, found.winner) == ("not-enough-evidence", None)
    assert "cannot tell whether lora is better than few, which costs less" in found.why[0]
    assert "Until then few is the one to use" in found.why[1]
    assert found.to_json()["meanwhile"] == "few"
    assert found.rows_to_decide is not None and found.rows_to_decide > 100


def test_a_dearer_arm_that_can_be_better_only_by_less_than_matters_does_not() -> None:
    dear = arm("lora", "fine-tune", right(801, 1000, 1), usd_to_build=50)
    found = verdict([arm("few", "prompt", right(803, 1000)), dear], minimum_effect=0.02)
    assert (found.kind, found.winner) == ("prompt", "few")


def test_an_undetermined_arm_of_unknown_cost_holds_up_the_verdict() -> None:
    unknown = arm("few", "prompt", right(80, 100, 5), machine_seconds_per_request=None)
    found = verdict([arm("lora", "fine-tune", right(83, 100)), unknown])
    assert found.kind == "not-enough-evidence"
    assert any("cost of few was not measured" in sentence for sentence in found.why)


CURVE = LearningCurve((CurvePoint(100, 0.7),), gain=0.06, interval=(0.03, 0.09))


def test_more_data_when_doubling_is_expected_to_reach_the_required_score() -> None:
    arms = [arm("zero", "prompt", right(300, 1000)), arm("lora", "fine-tune", right(860, 1000))]
    found = verdict(arms, CURVE, required_score=0.9)
    assert (found.kind, found.winner) == ("more-data", None)
    assert "92.0 % is expected" in found.why[0]


def test_a_missed_required_score_without_a_learning_curve_is_not_enough_evidence() -> None:
    arms = [arm("zero", "prompt", right(300, 1000)), arm("lora", "fine-tune", right(860, 1000))]
    found = verdict(arms, required_score=0.9)
    assert (found.kind, found.winner) == ("not-enough-evidence", None)
    assert "not measured" in found.why[0]


def test_a_required_score_out_of_reach_is_said_loudly() -> None:
    arms = [arm("zero", "prompt", right(300, 1000)), arm("lora", "fine-tune", right(860, 1000))]
    found = verdict(arms, CURVE, required_score=0.99)
    assert found.kind == "fine-tune"
    assert any(sentence.startswith("WARNING: no arm reaches") for sentence in found.why[:2])


def test_a_cheap_arm_below_the_required_score_does_not_win() -> None:
    arms = [
        arm("few", "prompt", right(895, 1000)),
        arm("lora", "fine-tune", right(905, 1000), usd_to_build=9),
    ]
    assert verdict(arms, minimum_effect=0.03).winner == "few"
    assert verdict(arms, minimum_effect=0.03, required_score=0.9).winner == "lora"


def test_no_finished_arm_is_not_enough_evidence_and_no_error() -> None:
    found = verdict([arm("zero", "prompt", None), arm("lora", "fine-tune", None)])
    assert (found.kind, found.winner) == ("not-enough-evidence", None)
    document = found.to_json()
    assert document["comparisons"] == [] and document["cost_curve"] == [] and document["test_rows"] == 0
    assert "zero (prompting) was skipped: no time left." in found.why


def test_a_winner_over_fewer_ways_than_were_wanted_is_told_so_right_after_it() -> None:
    arms = [
        arm("words", "classical", right(90, 100)),
        arm("zero", "prompt", right(20, 100)),
        arm("lora", "fine-tune", None),
    ]
    found = verdict(arms)
    assert found.winner == "words"
    assert found.why[1] == "No fine-tuned arm was measured, so the verdict says nothing about that way."


def test_a_doubt_between_fewer_ways_than_were_wanted_says_so_too() -> None:
    arms = [
        arm("words", "classical", right(50, 100)),
        arm("zero", "prompt", right(53, 100, shift=40)),
        arm("lora", "fine-tune", None),
    ]
    found = verdict(arms)
    assert (found.kind, found.winner) == ("not-enough-evidence", None)
    assert "No fine-tuned arm was measured, so the verdict says nothing about that way." in found.why[1:4]


def test_a_training_that_the_budget_cut_short_is_told_beside_the_headline() -> None:
    cut, nearly = (
        verdict(
            [
                arm("words", "classical", right(90, 100)),
                arm("zero", "prompt", right(20, 100)),
                arm("lora", "fine-tune", right(70, 100), epochs=(epochs, 3.0)),
            ]
        )
        for epochs in (0.234, 2.8)
    )
    told = "lora went through its rows 0.23 times, where 3 times are wished for: the budget left no more."
    assert cut.why[1].startswith(told)
    assert not any("went through its rows" in sentence for sentence in nearly.why)


def test_one_family_alone_decides_nothing_when_others_were_wanted() -> None:
    arms = [arm("zero", "prompt", right(80, 100)), arm("lora", "fine-tune", None)]
    found = verdict(arms)
    assert (found.kind, found.winner) == ("not-enough-evidence", None)
    assert "Only prompting arms were measured" in found.why[0]
    alone = verdict(arms[:1])
    assert (alone.kind, alone.winner) == ("prompt", "zero")
    assert "compared with nothing" in alone.why[0]


def test_equal_arms_at_equal_cost_go_to_the_simplest() -> None:
    scores = right(800, 1000)
    arms = [arm("lora", "fine-tune", scores), arm("few", "prompt", scores), arm("tfidf", "classical", scores)]
    assert verdict(arms).winner == "tfidf"


def test_few_rows_are_said() -> None:
    found = verdict([arm("zero", "prompt", right(2, 20)), arm("lora", "fine-tune", right(19, 20))])
    assert any("Only 20 test rows" in sentence for sentence in found.why)


def test_law_51_a_score_on_cut_off_answers_is_called_cut_off_and_decides_nothing() -> None:
    # 150 of 250 answers end at the limit; of the other 100, 90 are right: as good as lora, if let finish.
    cut = arm("zero", "prompt", right(90, 250), truncated=0.6)
    tuned = arm("lora", "fine-tune", right(225, 250), truncated=0.0, usd_to_build=5)
    found = verdict([cut, tuned])
    assert (found.kind, found.winner) == ("not-enough-evidence", None)
    assert found.why[0].startswith("60.0 % of zero's answers were cut off, against 0.0 % of lora's")
    assert "Had they been as good as its other answers" in found.why[0]
    assert "allow longer answers" in found.why[0] and found.case.artefacts == ("zero",)
    assert verdict([replace(cut, truncated=0.0), tuned]).kind == "fine-tune"


def test_law_51_a_score_that_form_cannot_explain_decides_and_form_is_named() -> None:
    # Even if all cut-off answers were as good as the others (50 of 200), zero stays far behind.
    cut = arm("zero", "prompt", right(50, 250), truncated=0.2)
    found = verdict([cut, arm("lora", "fine-tune", right(225, 250), truncated=0.0)])
    assert found.kind == "fine-tune"
    assert any(sentence.startswith("WARNING: 20.0 % of zero's answers were cut off") for sentence in found.why[:3])


def test_law_51_where_hardly_an_answer_is_well_formed_nothing_is_known() -> None:
    unread = arm("zero", "prompt", right(0, 250), invalid=1.0)
    found = verdict([unread, arm("lora", "fine-tune", right(225, 250), invalid=0.0)])
    assert (found.kind, found.case.artefacts) == ("not-enough-evidence", ("zero",))
    assert "say in the prompt how the answer must look" in found.why[0]
    assert "None of its answers was of good form" in found.why[0]
    two = arm("zero", "prompt", right(2, 250), invalid=0.992)
    why = verdict([two, arm("lora", "fine-tune", right(225, 250), invalid=0.0)]).why[0]
    assert "Only 2 of its answers were of good form, too few to say" in why and "Had they" not in why


def test_groups_widen_the_verdict() -> None:
    names = tuple(f"customer-{n // 20}" for n in range(400))
    loud = [1.0 if n < 60 or n % 2 else 0.0 for n in range(400)]
    quiet = [1.0 if n % 2 else 0.0 for n in range(400)]
    alone = verdict([arm("few", "prompt", quiet), arm("lora", "fine-tune", loud)])
    grouped = verdict([arm("few", "prompt", quiet, groups=names), arm("lora", "fine-tune", loud, groups=names)])
    assert alone.kind == "fine-tune" and grouped.kind == "not-enough-evidence"
    assert any("400 test rows come in 20 groups" in sentence for sentence in grouped.why)
    assert grouped.to_json()["test_groups"] == 20


def test_looking_again_widens_the_intervals_and_all_later_looks_err_as_seldom_as_the_first() -> None:
    assert confidence_after(1, 0.95) == 0.95
    assert sum(1 - confidence_after(look, 0.95) for look in range(2, 10_000)) == pytest.approx(0.05, rel=1e-3)
    arms = [arm("few", "prompt", right(150, 200)), arm("lora", "fine-tune", right(168, 200, 8))]
    first, tenth = (
        decide(arms, Decision(), metric="accuracy", price=PRICE, provenance={}, looks_at_test=looks)
        for looks in (1, 10)
    )
    assert first.case.comparisons[0].interval[0] > tenth.case.comparisons[0].interval[0]
    assert first.kind == "fine-tune" and tenth.kind == "not-enough-evidence"
    assert any("verdict number 10 from these test rows" in sentence for sentence in tenth.why)


def test_an_arm_that_forgot_too_much_does_not_win() -> None:
    arms = [arm("few", "prompt", right(120, 200)), arm("lora", "fine-tune", right(168, 200))]
    probes = {"lora": Probes(forgetting=Forgetting(3.0, 3.4, 0.40, 0.28))}
    decided = [
        decide(arms, Decision(largest_forgetting=limit), metric="accuracy", price=PRICE, provenance={}, probes=probes)
        for limit in (None, 0.2, 0.1)
    ]
    assert [found.winner for found in decided] == ["lora", "lora", "few"]
    assert any("lora forgot more than is allowed" in sentence for sentence in decided[2].why)


def test_the_spread_of_seeds_can_take_a_verdict_away() -> None:
    few = arm("few", "prompt", right(150, 200))
    tuned = arm("lora", "fine-tune", right(170, 200, 3), seeds=3)
    assert verdict([few, tuned]).kind == "fine-tune"
    assert verdict([few, replace(tuned, seed_spread=0.05)]).kind == "not-enough-evidence"


def test_the_verdict_turns_where_it_says() -> None:
    few = arm("few", "prompt", right(902, 1000), machine_seconds_per_request=None, input_tokens=500.0,
              output_tokens=5.0, token_price=TokenPrice(0.15, 0.60))  # fmt: skip
    tuned = arm("lora", "fine-tune", right(905, 1000), usd_to_build=20.0)
    found = verdict([few, tuned], minimum_effect=0.02, requests_per_month=1_000_000)
    assert found.kind == "fine-tune"
    turns = {flip.of: flip for flip in found.case.flips}
    assert turns["requests"].side == "below" and turns["requests"].to == "prompt"
    # 20 USD are won back at (7.8e-5 - 0.1 * 0.1 / 3600) USD a request.
    assert turns["requests"].at == pytest.approx(20 / (7.8e-5 - 0.01 / 3600), rel=1e-4)
    assert turns["usd_per_million_input"].side == "below" and turns["usd_per_machine_hour"].side == "above"
    below = verdict([few, tuned], minimum_effect=0.02, requests_per_month=int(turns["requests"].at / 12 * 0.99))
    assert below.kind == "prompt"
    dearer = decide([few, replace(tuned, usd_to_build=20.0 * turns["usd_per_machine_hour"].at / 0.1)],
                    Decision(minimum_effect=0.02, requests_per_month=1_000_000), metric="accuracy", provenance={},
                    price=replace(PRICE, usd_per_machine_hour=1.01 * turns["usd_per_machine_hour"].at))  # fmt: skip
    assert dearer.kind == "prompt"
    assert any("if volume falls under about" in sentence for sentence in found.why)


def test_graded_scores_use_the_bootstrap_and_have_no_cost_per_correct_answer() -> None:
    rng = np.random.default_rng(0)
    better, worse = rng.uniform(0.5, 1, 200), rng.uniform(0.2, 0.7, 200)
    found = verdict([arm("few", "prompt", worse.tolist()), arm("lora", "fine-tune", better.tolist())]).to_json()
    assert found["verdict"] == "fine-tune"
    assert found["comparisons"][0]["test"] == "paired-t-skewed"
    assert all(entry["usd_per_1k_correct"] is None for entry in found["arms"])


def test_the_document_has_the_keys_of_the_contract_and_is_plain_json() -> None:
    arms = [
        arm("zero", "prompt", right(80, 200), row_seconds=[0.2, 0.3] * 100, machine_seconds_per_request=0.25),
        arm("lora", "fine-tune", right(160, 200), usd_to_build=1, row_seconds=[0.1, 0.11] * 100),
        arm("full", "fine-tune", None),
    ]
    document = json.loads(json.dumps(verdict(arms).to_json(), allow_nan=False))
    assert set(document) == KEYS
    assert all(set(entry) == ARM_KEYS for entry in document["arms"])
    assert set(document["comparisons"][0]) == {
        "a",
        "b",
        "difference",
        "interval",
        "p",
        "p_adjusted",
        "test",
        "equivalent",
    }
    assert set(document["break_even"]) == {"arm", "against", "status", "requests", "correct_answers"}
    assert document["arms"][2]["score"] is None and document["arms"][2]["status"] == "skipped"
    assert document["provenance"]["price"]["usd_per_machine_hour"] == 0.1


def test_arms_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="share a name"):
        verdict([arm("a", "prompt", [1]), arm("a", "prompt", [0])])
    with pytest.raises(ValueError, match="different numbers"):
        verdict([arm("a", "prompt", [1]), arm("b", "prompt", [0, 1])])
    with pytest.raises(ValueError, match=r"0\.\.1"):
        arm("a", "prompt", [float("nan")])


def test_no_difference_at_equal_cost_gives_fine_tune_in_at_most_5_percent() -> None:
    rng, draws, kinds = np.random.default_rng(8), 600, []
    for _ in range(draws):
        hard = rng.random(200)
        scores = [(0.6 * hard + 0.4 * rng.random(200) < 0.55).astype(float).tolist() for _ in range(3)]
        arms = [
            arm("few", "prompt", scores[0]),
            arm("zero", "prompt", scores[1]),
            arm("lora", "fine-tune", scores[2]),
        ]
        found = decide(arms, Decision(minimum_effect=0.01), metric="accuracy", price=PRICE, provenance={})
        kinds.append(found.kind)
    assert kinds.count("fine-tune") <= 0.05 * draws


FAMILIES = st.sampled_from(["prompt", "fine-tune", "classical"])


@st.composite
def some_arms(draw: st.DrawFn) -> list[ArmResult]:
    """Two to four arms of 40 or 400 rows with any accuracy and cost."""
    rows = draw(st.sampled_from([40, 400]))
    arms = []
    for index in range(draw(st.integers(2, 4))):
        scores = right(draw(st.integers(0, rows)), rows, draw(st.integers(0, rows)))
        fields = {"usd_to_build": draw(st.sampled_from([0.0, 1.0, 20.0]))}
        fields["machine_seconds_per_request"] = draw(st.sampled_from([0.001, 0.1, 1.0]))
        arms.append(arm(f"arm{index}", draw(FAMILIES), scores, **fields))
    return arms


@given(some_arms(), st.data())
def test_an_arm_added_twice_never_changes_the_kind(arms: list[ArmResult], data: st.DataObject) -> None:
    twin = replace(data.draw(st.sampled_from(arms)), name=data.draw(st.sampled_from(["a-twin", "z-twin"])))
    assert verdict([*arms, twin], minimum_effect=0.05).kind == verdict(arms, minimum_effect=0.05).kind


@given(some_arms(), st.randoms(use_true_random=False))
def test_the_order_of_the_arms_does_not_matter(arms: list[ArmResult], random: object) -> None:
    shuffled = list(arms)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = verdict(arms, minimum_effect=0.05), verdict(shuffled, minimum_effect=0.05)
    assert (one.kind, one.winner) == (other.kind, other.winner)


@given(some_arms())
def test_a_winner_is_the_best_or_shown_as_good_and_no_dearer(arms: list[ArmResult]) -> None:
    found = verdict(arms, minimum_effect=0.05)
    if found.winner is None or found.winner == found.case.best.name:  # type: ignore[union-attr]
        return
    pair = next(pair for pair in found.case.comparisons if pair.b == found.winner)
    assert pair.interval[1] < 0.05 or pair.equivalent
    assert found.case.totals[found.winner] <= found.case.totals[pair.a]  # type: ignore[operator]


def test_arms_that_get_nothing_right_are_not_recommended_however_cheap() -> None:
    none = [arm("floor", "classical", [0] * 400), arm("prompt", "prompt", [0] * 400, machine_seconds_per_request=9.0)]
    found = verdict(none)
    assert (found.kind, found.winner) == ("not-enough-evidence", None)
    content = found.to_json()
    assert content["meanwhile"] is None
    assert content["saving"] is None
    assert "No arm scored above 0 on 400 test rows" in content["why"][0]
    one = verdict([arm("floor", "classical", [0] * 400), arm("prompt", "prompt", right(380, 400))])
    assert one.winner == "prompt"
