"""How a local model is held to what an answer may be: labels by walk or by score, objects by schema."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import VOCABULARY, tiny_model, tiny_renderer
from tuneworth.data import Example, Message
from tuneworth.evaluation.local import LocalModel, Scoring
from tuneworth.evaluation.metrics.schemas import derived_schema
from tuneworth.evaluation.metrics.spelling import spelled
from tuneworth.evaluation.prompts import PromptForm
from tuneworth.inference import Engine, Grammars
from tuneworth.models.tuning import Recipe

LABELS = ("late", "late pay", "pay", "né")
SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
EXAMPLES = [Example(f"r{n}", (Message("user", "x" * n + "?"),), "late", "t.csv", n) for n in range(1, 7)]
FORM = PromptForm("short", "Say one.")
RENDERER = tiny_renderer()


def scoring(decoding: str, labels: Sequence[str] = LABELS, schema: Any = None) -> Scoring:
    metric: Any = None
    return Scoring(metric, tuple(labels), 120, cast(Any, decoding), "classification", schema)


@pytest.fixture
def local() -> LocalModel:
    folder: Any = SimpleNamespace(id="tiny", context_tokens=1024, sha256="", path=Path())
    return LocalModel(folder, tiny_renderer(), tiny_model(), "cpu")


def test_scored_answers_are_the_likeliest_labels_with_their_confidence(local: LocalModel) -> None:
    found = local.answer(FORM, EXAMPLES, scoring("scored"))
    assert {answer.text for answer in found} <= set(LABELS)
    assert all(1 / len(LABELS) <= answer.parts["confidence"] <= 1 for answer in found)
    chat = local.chat(LABELS, scored=True)
    assert [chat.chat(FORM.messages(example)) for example in EXAMPLES] == [answer.text for answer in found]


def test_objects_keep_to_the_schema_when_constrained(local: LocalModel) -> None:
    found = local.answer(FORM, EXAMPLES, scoring("constrained", (), SCHEMA))
    assert {json.dumps(json.loads(answer.text)) for answer in found} <= {'{"n": 1}', '{"n": 2}'}
    assert {answer.finish_reason for answer in found} == {"stop"}


LISTS = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}, "b": {"type": "string"}},
         "required": ["a", "b"], "additionalProperties": False}  # fmt: skip


@pytest.mark.parametrize("room", [30, 60, 120])
def test_objects_that_would_never_end_are_closed_in_time_and_served_as_they_were_judged(
    local: LocalModel, room: int
) -> None:
    found = local.answer(FORM, EXAMPLES, replace(scoring("constrained", (), LISTS), max_new_tokens=room))
    assert all(set(json.loads(answer.text)) == {"a", "b"} for answer in found)
    assert {answer.finish_reason for answer in found} == {"stop"}
    assert max(answer.parts["closed"] for answer in found) == 1  # the tiny model knows no end
    chat = local.chat(schema=LISTS)
    assert [chat.chat(FORM.messages(e), max_new_tokens=room) for e in EXAMPLES] == [answer.text for answer in found]


def test_answers_are_held_to_no_schema_that_forbids_what_is_learnt(local: LocalModel) -> None:
    assert local.not_held(LISTS, ['{"a": ["x"], "b": "é \\" \\\\ \\n"}', '{"a": [], "b": ""}']) is None
    assert "could not be written" in str(local.not_held(LISTS, ['{"b": "x", "a": []}']))
    assert "cannot be kept to" in str(local.not_held({"type": "object", "not": {"required": ["c"]}}, ['{"b": 1}']))


FIELD = st.integers(0, 9) | st.lists(st.text(max_size=3))


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.dictionaries(st.sampled_from("xyz"), FIELD, max_size=3), min_size=1, max_size=4))
def test_every_object_in_its_one_spelling_can_be_written(values: list[Any]) -> None:
    schema = derived_schema(values)
    texts = [spelled(value, schema) for value in values]
    grammar = Grammars(RENDERER, VOCABULARY).json_schema(schema)
    assert [json.loads(text) for text in texts] == values
    assert all(grammar.allows(RENDERER.encode_text(text)) for text in texts)


def test_a_prompt_longer_than_the_context_is_an_error_of_its_row_whatever_the_decoding(local: LocalModel) -> None:
    long = Example("long", (Message("user", "y" * 2000),), "late", "t.csv", 9)
    for wanted in (scoring("generate"), scoring("constrained"), scoring("scored"), scoring("constrained", (), SCHEMA)):
        answers = local.answer(FORM, [EXAMPLES[0], long, EXAMPLES[1]], wanted)
        assert [answer.finish_reason == "error" for answer in answers] == [False, True, False]
        assert "context" in str(answers[1].error)


def test_law_35_the_share_of_answers_that_turn_over_is_measured(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = local.details(FORM, EXAMPLES, scoring("constrained"))
    assert (found["flip_rate"], found["flip_rows"]) == (0.0, 6)
    generate = Engine.generate

    def turning(self: Engine, prompts: Sequence[Sequence[int]], **options: Any) -> Any:
        return generate(self, [p[:-1] if len(prompts) == 1 else p for p in prompts], **options)

    monkeypatch.setattr(Engine, "generate", turning)
    assert local.details(FORM, EXAMPLES, scoring("generate"))["flip_rate"] > 0


@pytest.mark.parametrize("decoding", ["scored", "constrained", "generate"])
def test_law_35_alone_no_answer_depends_on_its_neighbours_to_the_last_bit(decoding: str) -> None:
    folder: Any = SimpleNamespace(id="tiny", context_tokens=1024, sha256="", path=Path())
    alone = LocalModel(folder, tiny_renderer(), tiny_model(), "cpu", alone=True)
    rows = [replace(example, id=f"s{n}") for n, example in enumerate([*EXAMPLES, *EXAMPLES])]
    chance = random.Random(1)

    def said(examples: Sequence[Example]) -> dict[str, tuple[str, float | None]]:
        found = alone.answer(FORM, examples, scoring(decoding))
        return {e.id: (a.text, a.parts.get("confidence")) for e, a in zip(examples, found, strict=True)}

    every = said(rows)
    for _ in range(6):
        some = chance.sample(rows, chance.randrange(1, len(rows)))
        alone.chat().chat(FORM.messages(some[0]), max_new_tokens=2)  # remembers its prompt
        assert said(some) == {example.id: every[example.id] for example in some}
    assert all(every[f"s{n}"] == every[f"s{n + 6}"] for n in range(6))


def test_law_35_alone_no_preference_depends_on_its_neighbours_to_the_last_bit() -> None:
    folder: Any = SimpleNamespace(id="tiny", context_tokens=1024, sha256="", path=Path())
    alone = LocalModel(folder, tiny_renderer(), tiny_model(), "cpu", alone=True)
    pairs = [replace(row, rejected=Message("assistant", "no" * row.line)) for row in EXAMPLES]
    wanted = replace(scoring("scored", ()), kind="preference")
    every = [answer.parts for answer in alone.answer(FORM, pairs, wanted)]
    assert [answer.parts for answer in alone.answer(FORM, pairs[::-1][:4], wanted)] == every[::-1][:4]
    assert [alone.answer(FORM, [pair], wanted)[0].parts for pair in pairs] == every


def test_the_engine_is_kept_until_a_tuning_comes_or_goes(local: LocalModel) -> None:
    before = local.engine()
    assert local.engine() is before
    plain = local.answer(FORM, EXAMPLES, scoring("generate"))
    with local.tuned(Recipe("lora", 4, 8, 0)) as tuned:
        assert local.engine() is not before
        with torch.no_grad():
            for parameter in tuned.parameters.values():
                parameter.add_(0.5)
        changed = local.answer(FORM, EXAMPLES, scoring("generate"))
    assert [a.text for a in changed] != [a.text for a in plain]
    assert [a.text for a in local.answer(FORM, EXAMPLES, scoring("generate"))] == [a.text for a in plain]
