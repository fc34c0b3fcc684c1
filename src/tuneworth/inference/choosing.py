"""Constrained answers: the choices are a tree of tokens, and generation may only walk along it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Node:
    """A place in the tree: the tokens that may come next, and the choice if only one is left below here."""

    children: dict[int, Node] = field(default_factory=dict)
    only: int | None = None
    places: list[int] = field(default_factory=list)  # of the children among the tree's tokens


@dataclass(frozen=True, slots=True)
class ChoiceTree:
    """`choices` as a tree. `tokens` are all tokens in it, in order: no other logits are needed."""

    root: Node
    tokens: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, choices: Sequence[Sequence[int]], end_id: int) -> ChoiceTree:
        """The tree of `choices`, each followed by the end token, so that none is the beginning of another.

        Raises ValueError when two choices are the same tokens or one is empty.
        """
        if len({tuple(choice) for choice in choices}) < len(choices) or not all(choices):
            raise ValueError("choices must differ from each other and not be empty")
        root, nodes = Node(), []
        for index, choice in enumerate(choices):
            node = root
            for token in [*choice, end_id]:
                known = token in node.children
                node = node.children.setdefault(token, Node(only=index))
                nodes.append(node)
                if known:
                    node.only = None
        tokens = tuple(sorted({token for choice in choices for token in choice} | {end_id}))
        place = {token: index for index, token in enumerate(tokens)}
        for node in (root, *nodes):
            node.places = [place[token] for token in node.children]
        return cls(root, tokens, tuple(tuple(choice) for choice in choices))
