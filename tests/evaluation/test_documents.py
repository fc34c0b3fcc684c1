"""Passages of the user's texts: whole paragraphs, found by the words of the request, hostile folders named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneworth.data import Example, Message
from tuneworth.data.documents import documents_sha256, read_passages, split_passages
from tuneworth.errors import InputError
from tuneworth.evaluation.documents import DocumentsForm, Passages
from tuneworth.evaluation.prompts import PromptForm

TEXTS = (
    "A parcel takes three days.",
    "Cards are refused when they have run out.",
    "Lamps have a guarantee of two years.",
)


def row(text: str, *before: Message) -> Example:
    return Example("r", (*before, Message("user", text)), "answer", "f", 1)


@given(st.text(alphabet="ab \n", max_size=3000))
def test_passages_hold_every_word_in_order_and_are_short(text: str) -> None:
    passages = split_passages(text)
    assert all(0 < len(passage) <= 800 for passage in passages)
    assert "".join("".join(passages).split()) == "".join(text.split())


def test_whole_paragraphs_stay_together_up_to_the_limit() -> None:
    assert split_passages("one\n\ntwo\r\n\r\nthree") == ["one\n\ntwo\n\nthree"]
    assert [len(p) for p in split_passages("x" * 700 + "\n\n" + "y" * 700)] == [700, 700]
    assert [len(p) for p in split_passages("x" * 1700)] == [800, 800, 100]


def test_the_likest_passages_come_first_and_none_that_shares_no_word() -> None:
    passages = Passages.of(TEXTS)
    assert passages.nearest("is my card refused", 2) == (TEXTS[1],)
    assert passages.nearest("years of guarantee of a lamp, three days", 2)[0] == TEXTS[2]
    assert passages.nearest("zzz", 2) == ()


def test_the_last_message_of_the_user_gets_the_passages_and_the_rest_stays() -> None:
    form = DocumentsForm("d", PromptForm("full", "Help."), Passages.of(TEXTS), 1)
    talk = row("and when does my parcel come", Message("user", "hello"), Message("assistant", "hi"))
    shown = form.messages(talk)
    assert [m["role"] for m in shown] == ["system", "user", "assistant", "user"]
    assert [m["content"] for m in shown[:3]] == ["Help.", "hello", "hi"]
    last = f"Passages that may help:\n\n[1] {TEXTS[0]}\n\nThe message:\n\nand when does my parcel come"
    assert shown[3]["content"] == last
    assert form.messages(row("zzz"))[-1]["content"] == "zzz"
    assert [m["content"] for m in form.opening()] == ["Help."]


def test_texts_are_read_in_order_links_are_not_and_bad_files_are_all_named(tmp_path: Path) -> None:
    for name, text in (("b.md", "second"), ("a.txt", "first"), ("c.pdf", "no text"), ("deep/d.TXT", "third")):
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "secret.txt").write_text("outside")
    (tmp_path / "texts" / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert read_passages(tmp_path / "texts") == ("first", "second", "third")
    before = documents_sha256(tmp_path / "texts")
    (tmp_path / "texts" / "c.pdf").write_text("changed")
    assert documents_sha256(tmp_path / "texts") == before
    (tmp_path / "texts" / "a.txt").write_bytes(b"ab\xff")
    (tmp_path / "texts" / "b.md").write_bytes(b"\xff")
    assert documents_sha256(tmp_path / "texts") != before
    with pytest.raises(InputError) as caught:
        read_passages(tmp_path / "texts")
    assert [(Path(p.where).name, p.what) for p in caught.value.problems] == [
        ("a.txt", "byte 2 is not UTF-8"),
        ("b.md", "byte 0 is not UTF-8"),
    ]


@pytest.mark.parametrize("what", ["missing", "empty", "blank"])
def test_a_folder_without_texts_is_named(tmp_path: Path, what: str) -> None:
    if what != "missing":
        (tmp_path / "texts").mkdir()
    if what == "blank":
        (tmp_path / "texts" / "a.txt").write_text(" \n\n ")
    with pytest.raises(InputError, match=r"data\.documents: .*texts"):
        read_passages(tmp_path / "texts")
