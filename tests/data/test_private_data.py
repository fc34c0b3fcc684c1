"""Private data: what proves itself is found, what only looks like it is not."""

from __future__ import annotations

import time

import pytest

from tuneworth.data.private import private_kinds


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("reach me at +49 151 23456789", ["pii-phone"]),
        ("call (415) 555-2671 today", ["pii-phone"]),
        ("ring 5552671", ["pii-phone"]),
        ("06 12 34 56 78", ["pii-phone"]),
        ("order 5552671", []),
        ("so 760-300-150=310 are left", []),
        ("on 2024-01-15 and 03.11.2020 14:30", []),
        ("it cost 612 345 678 EUR", []),
        ("it cost $1,234,567.89", []),
        ("from 192.168.10.200", []),
        ("between 2009-2019", []),
        ("ISBN 978-3-16-148410-0", []),
        ("GB82 WEST 1234 5698 7654 32 thanks", ["pii-iban"]),
        ("gb82west12345698765432", ["pii-iban"]),
        ("GB83 WEST 1234 5698 7654 32", []),
        ("DE89370400440532013000, please", ["pii-iban"]),
        ("3782 822463 10005", ["pii-card"]),
        ("order 4111111111111111", []),
        ("the card of order 4111111111111111", ["pii-card"]),
        ("4111 1111 1111 1112", []),
        ("postgres://admin:hunter22@db.internal/main", ["secret"]),
        ("api_key = 9f8a7b6c5d4e3f2a", ["secret"]),
        ("the password: it has to be changed", []),
        ("commit 9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c3d2e1f0a", []),
        ("id 550e8400-e29b-41d4-a716-446655440000", []),
        ("npm install left-pad@1.3.0", []),
        ("thanks @anna_smith", []),
    ],
)
def test_private_values_are_told_from_what_looks_like_them(text, kinds):
    assert list(private_kinds(text)) == kinds


@pytest.mark.parametrize("prefix", ["ghp_", "AKIA", "hf_", "npm_", "AIza"])
def test_keys_of_known_issuers_are_found_by_their_shape(prefix):
    shapes = {"ghp_": "aB3" * 12, "AKIA": "ABCD2345" * 2, "hf_": "aBcDe" * 7, "npm_": "aB3" * 12, "AIza": "aB3_-" * 7}
    assert private_kinds(f"use {prefix}{shapes[prefix]} here") == ("secret",)


def test_a_number_counts_for_one_kind_only():
    assert private_kinds("my iban is DE89 3704 0044 0532 0130 00") == ("pii-iban",)
    assert private_kinds("card 4111 1111 1111 1111") == ("pii-card",)


@pytest.mark.parametrize("sign", ["1", "a", " ", "@", "-", "1 ", "a.", "://a:"])
def test_long_hostile_texts_take_linear_time(sign):
    def seconds(length: int) -> float:
        text = sign * (length // len(sign))
        start = time.process_time()
        private_kinds(text)
        return time.process_time() - start

    # Ten times the text: a quadratic search would take a hundred times as long.
    assert seconds(300_000) < 30 * max(seconds(30_000), 0.005)
