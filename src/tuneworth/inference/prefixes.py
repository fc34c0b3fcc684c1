"""Beginnings of prompts, computed once: a tree of token stretches with their keys and values, inside a memory bound."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from tuneworth.inference.cache import Prefix


@dataclass(slots=True)
class _Stretch:
    """Tokens that follow one another without a branch. `part` holds their keys and values."""

    tokens: tuple[int, ...]
    part: Prefix
    parent: _Stretch | None
    children: dict[int, _Stretch] = field(default_factory=dict)
    used: int = 0


class PrefixTree:
    """What was computed, by tokens and by who computed it (an adapter: the same tokens have other keys under it).

    When more than `most_bytes` are held, the stretches that were not used for longest go, from the leaves on.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._roots: dict[Hashable, _Stretch] = {}
        self._clock = itertools.count(1)
        self.size_bytes = 0

    def clear(self) -> None:
        """Forget everything: the weights have changed."""
        self._roots.clear()
        self.size_bytes = 0

    def matched(self, tokens: Sequence[int], owner: Hashable = None) -> int:
        """How many of `tokens` are held from the first one on."""
        return sum(same for _, same in self._walk(tokens, owner))

    def longest(self, tokens: Sequence[int], owner: Hashable = None) -> Prefix:
        """Keys and values of the longest beginning of `tokens` that is held."""
        found, parts = 0, []
        for stretch, same in self._walk(tokens, owner):
            parts.append(stretch.part if same == stretch.part.tokens else stretch.part.cut(0, same))
            found += same
        return Prefix.joined(parts)

    def insert(self, tokens: Sequence[int], start: int, part: Prefix, owner: Hashable = None) -> None:
        """Hold `part`, the keys and values of tokens[start : start + part.tokens]; those before are held already.

        Where part of it is held already, only the rest is added.
        """
        if start and self.matched(tokens[:start], owner) < start:
            return  # what comes before was let go meanwhile
        whole = tuple(tokens[: start + part.tokens])
        node = self._roots.setdefault(owner, _Stretch((), Prefix.empty(), None))
        walked = list(self._walk(whole, owner))
        held = sum(same for _, same in walked)
        if held < len(whole):
            if walked:
                stretch, same = walked[-1]
                node = stretch if same == len(stretch.tokens) else self._split(stretch, same)
            rest = part.cut(held - start, part.tokens) if held > start else part
            new = _Stretch(whole[held:], rest, node, used=next(self._clock))
            node.children[new.tokens[0]] = new
            self.size_bytes += rest.size_bytes
        self._shrink()

    def _walk(self, tokens: Sequence[int], owner: Hashable) -> Iterator[tuple[_Stretch, int]]:
        """The stretches along `tokens`, each with how many of its tokens agree."""
        node, place, now = self._roots.get(owner), 0, next(self._clock)
        while node is not None and place < len(tokens):
            node = node.children.get(tokens[place])
            if node is None:
                return
            node.used = now
            pairs = zip(node.tokens, tokens[place : place + len(node.tokens)], strict=False)
            same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            yield node, same
            if same < len(node.tokens):
                return
            place += same

    def _split(self, stretch: _Stretch, at: int) -> _Stretch:
        """Cut a stretch in two, each in memory of its own, so that one can go without the other; returns the upper."""
        upper = _Stretch(stretch.tokens[:at], stretch.part.cut(0, at), stretch.parent, used=stretch.used)
        assert stretch.parent is not None
        stretch.parent.children[upper.tokens[0]] = upper
        stretch.tokens, stretch.part = stretch.tokens[at:], stretch.part.cut(at, stretch.part.tokens)
        stretch.parent = upper
        upper.children[stretch.tokens[0]] = stretch
        return upper

    def _shrink(self) -> None:
        while self.size_bytes > self._most_bytes:
            oldest = min(self._leaves(), key=lambda leaf: leaf.used)
            assert oldest.parent is not None
            del oldest.parent.children[oldest.tokens[0]]
            self.size_bytes -= oldest.part.size_bytes

    def _leaves(self) -> Iterator[_Stretch]:
        waiting = [child for root in self._roots.values() for child in root.children.values()]
        while waiting:
            node = waiting.pop()
            if node.children:
                waiting += node.children.values()
            else:
                yield node
