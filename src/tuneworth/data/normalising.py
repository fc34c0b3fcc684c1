"""When two inputs count as the same: one normal form, used by the audit, the cleaning and the split."""

from __future__ import annotations

import unicodedata

from tuneworth.data.example import Example

NORMALISATION = (
    "Unicode NFC, lower case, every punctuation mark, symbol and control character (categories P, S and Cc) "
    "turned into a space, except pictures such as emoji (category So), which stay because they change what a "
    "message says; runs of white space folded into one space. Conversations of several messages are compared "
    "whole, message by message with their roles, tool calls and tools."
)


class _Spaces(dict[int, str]):
    """A table for `str.translate` that looks each character up once."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        blank = (category[0] in "PS" and category != "So") or category == "Cc"
        self[code] = " " if blank else character
        return self[code]


_SPACES = _Spaces()


def normalise(text: str) -> str:
    """The normal form of one text, as `NORMALISATION` words it.

    NFC comes after lowering: some capitals have no composed form while their small letters do.
    """
    return " ".join(unicodedata.normalize("NFC", text.lower()).translate(_SPACES).split())


def input_key(example: Example) -> str:
    """What an example asks, normalised: equal keys are the same question. The answer plays no part, the tools do."""
    if len(example.messages) == 1 and not example.tools:
        return normalise(example.messages[0].content)
    parts = []
    for message in example.messages:
        parts.append(f"{message.role}: {normalise(message.content)}")
        parts += [f"call: {call.name} {call.arguments}" for call in message.calls]
    return "\n".join([*parts, f"tools: {example.tools}"] if example.tools else parts)
