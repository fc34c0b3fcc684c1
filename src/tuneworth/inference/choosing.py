"""Constrained answers: the choices are a tree of tokens, and generation may only walk along it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Node:
    """A place in the tree: the tokens that may come next, and the choice if only one is left below here."""

    children: dict[int, Node] = field(default_factory=dict)
    only: int | None = None


def choice_tree(choices: Sequence[Sequence[int]], end_id: int) -> Node:
    """The tree of `choices`, each followed by the end token, so that none is the beginning of another.

    Raises ValueError when two choices are the same tokens or one is empty.
    """
    if len({tuple(choice) for choice in choices}) < len(choices) or not all(choices):
        raise ValueError("choices must differ from each other and not be empty")
    root = Node()
    for index, choice in enumerate(choices):
        node = root
        for token in [*choice, end_id]:
            known = token in node.children
            node = node.children.setdefault(token, Node(only=index))
            if known:
                node.only = None
    return root
