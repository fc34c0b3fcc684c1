"""LAW 37: streamed pieces are the whole text, and no piece ends inside a character."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import cast

import pytest

from tiny import tiny_model, tiny_renderer
from tuneworth.errors import InputError
from tuneworth.inference import Chat, Engine, Request, Sampling

ASK = [{"role": "user", "content": "x"}]
_ALPHABETS = ("abc xyz,.\n", "äöüßéñ€", "日本語中文字漢", "😀👍🏽👨‍👩‍👧🇩🇪", "עבריתالعربية", "\U00020000\u0301\u200d ")


class Scripted:
    """An engine that writes given token ids, and notes what it was asked."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids
        self.asked = Request([], 0)

    def stream(self, request: Request) -> Iterator[int]:
        self.asked = request
        for place, token in enumerate(self.ids[: request.max_new_tokens], 1):
            yield token
            if request.over is not None and request.over(self.ids[:place]):
                return


def chat_that_writes(ids: Sequence[int], context: int = 10_000) -> tuple[Chat, Scripted]:
    engine = Scripted(ids)
    return Chat(tiny_renderer(), cast(Engine, engine), context), engine


def random_text(chance: random.Random) -> str:
    return "".join(chance.choice(chance.choice(_ALPHABETS)) for _ in range(chance.randrange(1, 30)))


def test_law_37_pieces_join_to_the_text_for_200_random_texts() -> None:
    renderer, chance = tiny_renderer(), random.Random(0)
    several = 0
    for _ in range(200):
        text = random_text(chance)
        pieces = list(chat_that_writes(renderer.encode_text(text))[0].stream(ASK))
        assert "".join(pieces) == text
        assert not any("\ufffd" in piece or piece == "" for piece in pieces)
        several += len(pieces) > 1
    assert several > 150


def test_law_37_a_replacement_character_of_the_text_itself_is_kept() -> None:
    text = "a\ufffdb\ufffd"
    pieces = list(chat_that_writes(tiny_renderer().encode_text(text))[0].stream(ASK))
    assert "".join(pieces) == text


def test_law_37_cut_inside_a_character_nothing_broken_comes_before_the_end() -> None:
    renderer, chance = tiny_renderer(), random.Random(1)
    for _ in range(50):
        ids = renderer.encode_text(random_text(chance))
        cut = ids[: chance.randrange(1, len(ids) + 1)]
        chat, _ = chat_that_writes(cut)
        pieces = list(chat.stream(ASK))
        assert "".join(pieces) == renderer.decode(cut) == chat.chat(ASK)
        assert not any("\ufffd" in piece for piece in pieces[:-1])


def test_control_tokens_are_not_part_of_the_text() -> None:
    renderer = tiny_renderer()
    ids = [*renderer.encode_text("ab"), renderer.end_id, *renderer.encode_text("c")]
    assert chat_that_writes(ids)[0].chat(ASK) == "abc"


def test_law_2_the_engine_gets_the_renderers_prompt_and_the_callers_wishes() -> None:
    chat, engine = chat_that_writes([1])
    chat.chat(ASK, Sampling(temperature=0.5, seed=9), max_new_tokens=7)
    prompt = tiny_renderer().prompt(ASK)
    assert (engine.asked.prompt, engine.asked.max_new_tokens) == (prompt, 7)
    assert engine.asked.sampling == Sampling(temperature=0.5, seed=9)


def test_a_conversation_over_the_context_is_an_input_error_that_counts() -> None:
    tokens = len(tiny_renderer().prompt(ASK))
    for context in (tokens, tokens - 1):
        with pytest.raises(InputError, match=f"{tokens} tokens.*holds {context}"):
            chat_that_writes([1], context)[0].chat(ASK)


def test_an_answer_never_runs_over_the_context() -> None:
    tokens = len(tiny_renderer().prompt(ASK))
    chat, engine = chat_that_writes([70, 71, 72, 73], tokens + 2)
    assert chat.chat(ASK) == tiny_renderer().decode([70, 71])
    assert engine.asked.max_new_tokens == 2


def test_a_real_tiny_model_talks() -> None:
    renderer = tiny_renderer()
    engine = Engine(tiny_model(), end_id=renderer.end_id)
    chat = Chat(renderer, engine, 200)
    whole = chat.chat(ASK, max_new_tokens=20)
    assert whole == "".join(chat.stream(ASK, max_new_tokens=20))
    written = engine.generate([renderer.prompt(ASK)], max_new_tokens=20)[0]
    assert whole == renderer.decode(written.ids)


STOPS = ["STOP", "##", "\n\n", "日本", "é"]


def test_a_stop_string_across_tokens_is_never_let_out_whole_or_in_part() -> None:
    renderer, chance = tiny_renderer(), random.Random(2)
    met = 0
    for _ in range(300):
        stops = chance.sample(STOPS, chance.randrange(1, 4))
        text = random_text(chance) + chance.choice(["", "ST", "STO", "#", "\n", *STOPS]) + random_text(chance)
        wanted = text[: min([text.find(s) for s in stops if s in text], default=len(text))]
        chat, _ = chat_that_writes(renderer.encode_text(text))
        got = list(chat.stream(ASK, stop=stops))
        assert "".join(got) == wanted == chat.chat(ASK, stop=stops)
        assert all(got)
        met += wanted != text
    assert met > 80


def test_the_engine_stops_at_the_token_that_completes_a_stop_string() -> None:
    renderer = tiny_renderer()
    asked: list[int] = []

    class Counting(Scripted):
        def stream(self, request: Request) -> Iterator[int]:
            for token in super().stream(request):
                asked.append(token)
                yield token

    ids = renderer.encode_text("abc##" + "z" * 50)
    chat = Chat(renderer, cast(Engine, Counting(ids)), 10_000)
    assert chat.chat(ASK, stop=["##"]) == "abc"
    assert len(asked) <= len(renderer.encode_text("abc##z"))


def test_a_beginning_of_a_stop_string_is_text_when_the_answer_ends_there() -> None:
    chat, _ = chat_that_writes(tiny_renderer().encode_text("abcST"))
    assert "".join(chat.stream(ASK, stop=["STOP"])) == "abcST"
