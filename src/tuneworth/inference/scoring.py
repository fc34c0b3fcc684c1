"""The likeliest of known answers, exactly: the tree of choices behind a prompt, searched best-first.

A branch is at most as likely as the tokens that lead to it, so it is expanded only while it may still beat the best
whole choice, and the answer is that of scoring every choice. Several branches of several prompts go into one pass:
the tokens of a row form a tree, and each attends to the prompt and to the branch that it continues.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from tuneworth.inference.cache import Branch, Prefix, RowCache
from tuneworth.inference.choosing import ChoiceTree, Node
from tuneworth.models.packed import Decoder

_Open: TypeAlias = tuple[float, Node, int, tuple[int, ...]]
"""A branch: its log probability, its node, the token that leads to it, and the slots of the tokens above it."""
_TOKENS_A_PASS = 32  # that cost little more than one, so a few prompts get several branches each


@dataclass(frozen=True, slots=True)
class Scores:
    """Log probability of every choice that was scored whole (its end token included), by number.

    What was not scored has at most `unexplored` of probability, all together. `seconds` is a share of wall time.
    """

    logprobs: dict[int, float]
    unexplored: float
    tokens: int
    seconds: float = 0.0

    @property
    def best(self) -> int:
        """The likeliest choice; the first of equals."""
        return max(sorted(self.logprobs), key=lambda index: self.logprobs[index])

    def probabilities(self, choices: int) -> list[float]:
        """A probability for each of `choices`, given that the answer is one of them.

        Choices that were not scored share what is unexplored evenly, which is at most what they have.
        """
        missing = choices - len(self.logprobs)
        each = self.unexplored / missing if missing else 0.0
        found = [math.exp(self.logprobs[i]) if i in self.logprobs else each for i in range(choices)]
        total = sum(found) or 1.0
        return [value / total for value in found]


@dataclass(slots=True)
class _Search:
    """One prompt's search. `open` are branches, the likeliest last."""

    positions: list[int]
    stem: int
    open: list[_Open] = field(default_factory=list)
    found: dict[int, float] = field(default_factory=dict)
    tokens: int = 0

    def add(self, node: Node, above: float, logs: Sequence[float], slots: tuple[int, ...]) -> None:
        """The children of a node that was read: whole choices, or branches."""
        for (token, child), place in zip(node.children.items(), node.places, strict=True):
            logprob = above + logs[place]
            if child.children:
                self.open.append((logprob, child, token, slots))
            else:
                assert child.only is not None
                self.found[child.only] = logprob
        self.open.sort(key=lambda branch: branch[0])

    def next(self, most: int, everything: bool) -> list[_Open]:
        """The branches to expand now; none when the best choice is certain."""
        least = -math.inf if everything else max(self.found.values(), default=-math.inf)
        taken: list[_Open] = []
        while self.open and len(taken) < most and (everything or self.open[-1][0] > least):
            taken.append(self.open.pop())
        return taken

    def scores(self, seconds: float) -> Scores:
        """What was found."""
        return Scores(self.found, sum(math.exp(branch[0]) for branch in self.open), self.tokens, seconds)


def score_rows(
    decoder: Decoder,
    prefix: Prefix,
    tails: Sequence[Sequence[int]],
    tree: ChoiceTree,
    *,
    device: str,
    everything: bool = False,
    clock: Callable[[], float],
) -> list[Scores]:
    """Scores of the choices behind each of `tails`, which follow the shared `prefix`; all of them if `everything`."""
    start = clock()
    cache = RowCache(prefix, device)
    cache.reserve(len(tails), max(map(len, tails)) + _TOKENS_A_PASS)
    cache.join([Prefix.empty()] * len(tails))
    counts = [len(tail) for tail in tails]
    ids = [token for tail in tails for token in tail]
    positions = cache.feed(counts)
    logs = _logs(decoder, ids, positions, cache, (torch.tensor(counts).cumsum(0) - 1).tolist(), tree)
    searches = [_Search(list(range(count)), count) for count in counts]
    for search, some in zip(searches, logs, strict=True):
        search.add(tree.root, 0.0, some, ())
    active = list(range(len(tails)))  # the search in each row of the cache
    while True:
        most = max(1, _TOKENS_A_PASS // max(1, len(active)))
        taken = [searches[index].next(most, everything) for index in active]
        for row in reversed([row for row, some in enumerate(taken) if not some]):
            last = cache.leave(row)
            active[row], taken[row] = active[last], taken[last]
            del active[last], taken[last]
        if not active:
            seconds = (clock() - start) / len(tails)
            return [search.scores(seconds) for search in searches]
        _expand(decoder, cache, tree, [searches[index] for index in active], taken)


def _expand(
    decoder: Decoder,
    cache: RowCache,
    tree: ChoiceTree,
    searches: Sequence[_Search],
    taken: Sequence[Sequence[_Open]],
) -> None:
    """Read the branches that were taken; their children become branches or whole choices."""
    branches: list[list[Branch]] = []
    for search, some in zip(searches, taken, strict=True):
        row = []
        for _, _, _, above in some:
            slot, position = len(search.positions), search.stem + len(above)
            search.positions.append(position)
            row.append(Branch(position, search.stem, (*above, slot)))
        search.tokens += len(row)
        branches.append(row)
    needed = max(len(search.positions) for search in searches)
    cache.reserve(len(searches), needed + needed % _TOKENS_A_PASS)
    positions = cache.feed_branches(branches, [search.positions for search in searches])
    ids = [token for some in taken for _, _, token, _ in some]
    logs = iter(_logs(decoder, ids, positions, cache, list(range(len(ids))), tree))
    for search, some, row in zip(searches, taken, branches, strict=True):
        for (logprob, node, _, _), branch in zip(some, row, strict=True):
            search.add(node, logprob, next(logs), branch.slots)


def _logs(
    decoder: Decoder, ids: Sequence[int], positions: Sequence[int], cache: RowCache, wanted: list[int], tree: ChoiceTree
) -> list[list[float]]:
    """Log probabilities of the tree's tokens behind each wanted token."""
    device = cache.device

    def tensor(values: Sequence[int]) -> Tensor:
        return torch.tensor(list(values), device=device)

    logits = decoder(tensor(ids), tensor(positions), cache, tensor(wanted))
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    found: list[list[float]] = (exact[:, tensor(tree.tokens)] - torch.logsumexp(exact, -1, keepdim=True)).tolist()
    return found
