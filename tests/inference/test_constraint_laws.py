"""Answers that must fit a schema, a pattern or a grammar: they do, and the likeliest token that fits is taken."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from tiny import VOCABULARY, plain_logits, plain_twin, tiny_model, tiny_renderer
from tuneworth.errors import InputError
from tuneworth.inference import Chat, Engine, Grammars, Request, Sampling
from tuneworth.inference.grammars import Grammar

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Bern", "Köln"]}, "people": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
RENDERER = tiny_renderer()
PROMPTS = [RENDERER.prompt([{"role": "user", "content": text}]) for text in ("a", "bb", "how many?", "no")]


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(RENDERER, VOCABULARY)


def answers(grammar: Grammar, seeds: Sequence[int] = (0,), count: int = 80) -> list[str]:
    engine = Engine(tiny_model(), end_id=RENDERER.end_id)
    requests = [
        Request(prompt, count, Sampling(temperature=1.0, seed=seed), grammar.start())
        for prompt in PROMPTS
        for seed in seeds
    ]
    found = engine.answer(requests)
    assert {answer.finish_reason for answer in found} == {"stop"}
    return [RENDERER.decode(answer.ids) for answer in found]


def test_every_answer_fits_the_json_schema(grammars: Grammars) -> None:
    found = [json.loads(text) for text in answers(grammars.json_schema(SCHEMA), seeds=range(4), count=200)]
    assert all(set(answer) == {"city", "people"} for answer in found)
    assert {answer["city"] for answer in found} <= {"Bern", "Köln"}
    assert all(answer["people"] in range(1, 10) for answer in found)
    assert len({json.dumps(answer) for answer in found}) > 3


def test_every_answer_matches_the_pattern_and_the_grammar(grammars: Grammars) -> None:
    assert all(re.fullmatch("[ab]{3}-[0-9]{2}", text) for text in answers(grammars.regex("[ab]{3}-[0-9]{2}")))
    lark = 'start: "(" start ")" | "x"'
    assert all(re.fullmatch(r"\(*x\)*", text) and text.count("(") == text.count(")") for text in answers(
        grammars.lark(lark), count=400))  # fmt: skip


def test_law_6_the_likeliest_token_that_fits_is_taken(grammars: Grammars) -> None:
    grammar = grammars.regex("(yes|no|né|maybe not)!{0,3}")
    model = tiny_model()
    twin = plain_twin(model)
    found = Engine(model, end_id=RENDERER.end_id).answer(
        [Request(prompt, 30, constraint=grammar.start()) for prompt in PROMPTS]
    )
    for prompt, answer in zip(PROMPTS, found, strict=True):
        matcher, ids = grammar.start(), list(prompt)
        while not matcher.finished:
            logits = plain_logits(twin, ids)[-1].masked_fill(~matcher.allowed(), float("-inf"))
            token = int(logits.argmax())
            if token == RENDERER.end_id:
                break
            matcher.take(token)
            ids.append(token)
        assert list(answer.ids) == ids[len(prompt) :]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda g: g.json_schema({"type": "integer", "minimum": 5, "maximum": 3}), "minimum"),
        (lambda g: g.json_schema({"enum": []}), "JSON Schema"),
        (lambda g: g.json_schema(False), "JSON Schema"),
        (lambda g: g.json_schema({"type": "nonsense"}), "nonsense"),
        (lambda g: g.regex("[0-9"), "regular expression"),
        (lambda g: g.lark("start: unknown"), "grammar"),
    ],
)
def test_an_impossible_schema_or_grammar_is_an_input_error_that_names_it(
    grammars: Grammars, make: Callable[[Grammars], Grammar], what: str
) -> None:
    with pytest.raises(InputError, match=what) as found:
        make(grammars)
    assert "cannot be kept to" in str(found.value)


def test_a_grammar_is_compiled_once_and_answers_do_not_share_their_state(grammars: Grammars) -> None:
    first, second = grammars.regex("ab?c"), grammars.regex("ab?c")
    assert first is second
    one, other = first.start(), first.start()
    one.take(RENDERER.encode_text("a")[0])
    assert not torch.equal(one.allowed(), other.allowed())


def test_a_chat_keeps_to_a_schema(grammars: Grammars) -> None:
    chat = Chat(RENDERER, Engine(tiny_model(), end_id=RENDERER.end_id), 500)
    text = chat.chat([{"role": "user", "content": "x"}], constraint=grammars.json_schema(SCHEMA).start())
    assert json.loads(text)["city"] in ("Bern", "Köln")
