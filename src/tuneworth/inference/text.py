"""Tokens as they come become text: no piece ends inside a character, and nothing of a stop string is let out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

_REPLACEMENT = "�"
_KEPT = 8  # tokens that are decoded again with the next one, since characters and blanks span tokens


class TextStream:
    """The text of one answer. `stops` are strings before which it ends, wherever the tokens are cut."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(filter(None, stops))
        self._longest = max(map(len, self._stops), default=1) - 1
        self._ids: list[int] = []
        self._sent = ""

    def over(self, ids: Sequence[int]) -> bool:
        """Whether the answer so far holds a stop string: the engine's question after each token (Request.over)."""
        if not self._stops:
            return False
        # A stop string that ends in the last token begins at most so many tokens before it: each ends a byte at least.
        last = ids[-(4 * self._longest + _KEPT) :]
        return self._place(self._decode(last)) is not None

    def push(self, token: int) -> str:
        """The text that is certain with this token; may be empty."""
        self._ids.append(token)
        text = self._decode(self._ids)
        place = self._place(text)
        if place is not None:
            return self._send(text[:place])
        if not text.startswith(self._sent) or text.endswith(_REPLACEMENT):
            return ""
        return self._send(text[: len(text) - self._held_back(text)])

    def rest(self) -> str:
        """What is left when no more tokens come."""
        text = self._decode(self._ids)
        place = self._place(text)
        return self._send(text if place is None else text[:place])

    def _send(self, text: str) -> str:
        piece = text[len(self._sent) :]
        if piece:
            self._sent = text
        return piece

    def _place(self, text: str) -> int | None:
        """Where the first stop string begins."""
        places = [place for place in map(text.find, self._stops) if place >= 0]
        return min(places, default=None)

    def _held_back(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        most = min(self._longest, len(text))
        return next((n for n in range(most, 0, -1) if any(s.startswith(text[-n:]) for s in self._stops)), 0)


def pieces(stream: TextStream, tokens: Iterator[int]) -> Iterator[str]:
    """The text of `tokens` in pieces whose concatenation is the whole text, none of them empty."""
    for token in tokens:
        piece = stream.push(token)
        if piece:
            yield piece
    rest = stream.rest()
    if rest:
        yield rest
