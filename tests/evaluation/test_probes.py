"""The probes one by one: what a model knows, how strangers are met, load, and the sets of the learning curve."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiny import plain_logits, plain_twin, tiny_model, tiny_renderer
from tuneworth.data import Example, Message
from tuneworth.evaluation.curve import curve_set, curve_sizes, finalist
from tuneworth.evaluation.forgetting import is_right, knowledge
from tuneworth.evaluation.general import general_questions, general_requests, general_texts
from tuneworth.evaluation.load import MOMENTS, at_once
from tuneworth.evaluation.local import LocalModel
from tuneworth.evaluation.probed import NO_FORM, Probed
from tuneworth.evaluation.records import RawAnswer
from tuneworth.evaluation.scope import how_met
from tuneworth.models.tuning import Recipe

TALK = [{"role": "user", "content": "say the yes"}, {"role": "assistant", "content": "yes :) the end"}]


@pytest.fixture(scope="module")
def local() -> LocalModel:
    folder: Any = SimpleNamespace(id="tiny", context_tokens=1024)
    return LocalModel(folder, tiny_renderer(), tiny_model(), "cpu")


def test_surprise_is_the_sum_over_the_answers_tokens_of_each_conversation(local: LocalModel) -> None:
    talks = [TALK, [TALK[0], {"role": "assistant", "content": "no"}], TALK]
    twin = plain_twin(tiny_model())
    for with_end in (True, False):
        found = local.surprise(talks, with_end=with_end)
        for talk, (nats, tokens) in zip(talks, found, strict=True):
            rendered = local.renderer.training(talk)
            places = [n for n, trained in enumerate(rendered.trained) if trained][: None if with_end else -1]
            with torch.no_grad():
                scores = torch.log_softmax(plain_logits(twin, rendered.ids), -1)
            assert tokens == len(places)
            assert nats == pytest.approx(-sum(float(scores[n - 1, rendered.ids[n]]) for n in places), rel=1e-9)


def test_knowledge_is_that_of_the_model_as_it_answers_now(local: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneworth.evaluation import forgetting

    monkeypatch.setattr(forgetting, "general_texts", lambda: general_texts()[:3])
    monkeypatch.setattr(forgetting, "general_questions", lambda: general_questions()[:6])
    before = knowledge(local)
    assert knowledge(local) == before
    assert before.loss == pytest.approx(sum(before.nats) / sum(before.tokens))
    with local.tuned(Recipe("lora", 4, 8, 0)) as tuned:
        assert knowledge(local).nats == pytest.approx(before.nats)  # an adapter that has learnt nothing
        with torch.no_grad():
            for parameter in tuned.parameters.values():
                parameter.add_(0.5)
        after = knowledge(local)
    assert abs(after.loss - before.loss) > 0.01
    assert knowledge(local) == before


def test_choices_are_weighed_by_the_token_so_that_short_ones_do_not_win(monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneworth.evaluation import forgetting

    monkeypatch.setattr(forgetting, "general_texts", lambda: general_texts()[:2])
    monkeypatch.setattr(forgetting, "general_questions", lambda: general_questions()[:2])
    # The right choice costs 1 nat a token and the wrong ones 2, but it is four times as long; then one that is wrong.
    answers = iter(
        [[(30.0, 10), (10.0, 10)], [(4.0, 4), (2.0, 1), (2.0, 1), (2.0, 1), (9.0, 3), (8.0, 4), (9, 1), (9, 1)]]
    )
    stub: Any = SimpleNamespace(surprise=lambda talks, with_end: next(answers))
    found = knowledge(stub)
    assert found.right == (True, False)
    assert (found.accuracy, found.loss) == (0.5, 2.0)


def test_the_likeliest_choice_is_that_of_the_lowest_loss_a_token_and_a_draw_is_wrong() -> None:
    assert is_right([1.0, 1.1, 2.0])
    assert not is_right([1.0, 0.9, 2.0])
    assert not is_right([1.0, 1.0, 2.0])


def test_the_general_material_is_whole() -> None:
    assert len(general_texts()) == 36
    assert all(text.about and len(text.text.split()) > 50 for text in general_texts())
    questions = general_questions()
    assert len({q.question for q in questions}) == len(questions) == 100
    assert all(len(set(q.choices)) == 4 and all(q.choices) for q in questions)
    requests = general_requests()
    assert len({r.text for r in requests}) == len({r.id for r in requests}) == 60


@pytest.mark.parametrize(
    ("text", "labels", "how"),
    [
        ("late", ("late", "pay"), "answered"),
        ("None", ("late", "none"), "declined"),
        ("out_of_scope", ("late", "out_of_scope"), "declined"),
        ("I'm sorry, I cannot sort this.", ("late", "pay"), "declined"),
        ("a penguin", ("late", "pay"), "invalid"),
        (" \n", ("late", "pay"), "empty"),
        ("A penguin cannot fly.", (), "answered"),
        ("I'm sorry, but I can't help with that.", (), "declined"),
        ("", (), "empty"),
    ],
)
def test_how_a_stranger_is_met(text: str, labels: tuple[str, ...], how: str) -> None:
    assert how_met(RawAnswer(text, "stop", "", 1, 1, 0.1), labels) == how


def test_a_failed_call_is_no_answer_to_a_stranger() -> None:
    assert how_met(RawAnswer("late", "error", "", 1, 1, 0.1, "timed out"), ("late", "pay")) == "empty"


def test_requests_at_once_are_sent_together_and_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneworth.evaluation import load

    now, sent = [0.0], []

    def ask(form: Any, rows: Any) -> list[RawAnswer]:
        sent.append([row.id for row in rows])
        now[0] += 1.0 + 0.5 * len(rows)
        return []

    monkeypatch.setattr(load.time, "perf_counter", lambda: now[0])
    rows = [Example(f"r{n}", (Message("user", "x"),), "y", "f", n) for n in range(10)]
    found = at_once(Probed("a", "prompt", NO_FORM, ask, None), rows)
    assert [point.requests for point in found] == list(MOMENTS) == [1, 4, 16]
    for point in found:
        assert point.seconds_p50 == point.seconds_p95 == 1.0 + 0.5 * point.requests
        assert point.machine_seconds_per_request == pytest.approx(point.seconds_p50 / point.requests)
    assert [len(some) for some in sent[1:]] == [n for n, moments in MOMENTS.items() for _ in range(moments)]
    assert sent[1 + MOMENTS[1]] == ["r0", "r1", "r2", "r3"]


@given(st.lists(st.sampled_from("abc"), min_size=20, max_size=120), st.integers(0, 3))
def test_the_sets_of_the_curve_lie_within_each_other_with_the_classes_in_proportion(
    labels: list[str], seed: int
) -> None:
    rows = [Example(f"r{n}", (Message("user", f"x{n}"),), label, "f", n) for n, label in enumerate(labels)]
    sizes = curve_sizes(len(rows))
    assert sizes[-1] == len(rows)
    smaller: set[str] = set()
    for size in sizes:
        some = curve_set(rows, size, seed, "classification")
        ids = {row.id for row in some}
        assert len(some) == size
        assert smaller <= ids
        smaller = ids
        for label in set(labels):
            share = labels.count(label) / len(labels)
            assert abs(sum(row.answer == label for row in some) - share * size) <= 2


def test_law_7_the_finalist_is_chosen_on_validation() -> None:
    def record(name: str, validation: float, test: float, **more: Any) -> dict[str, Any]:
        base = {"name": name, "family": "fine-tune", "status": "done", "score": test}
        return base | {"settings": {"validation_score": validation}} | more

    records = [record("a", 0.7, 0.9), record("b", 0.8, 0.6), record("c", 0.9, 0.9, family="prompt")]
    assert finalist(records) == "b"
    assert finalist([record("c", 0.9, 0.9, status="skipped")]) is None


def test_confidence_of_a_free_text_does_not_fall_with_its_length(local: LocalModel) -> None:
    found = local.surprise([[TALK[0], {"role": "assistant", "content": "the yes " * n}] for n in (2, 8)])
    assert all(0 < math.exp(-nats / tokens) < 1 for nats, tokens in found)
    assert found[1][0] > found[0][0]
