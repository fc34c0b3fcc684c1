"""Continuous batching: requests wait, join, get one token a pass, and leave; all of them behind one shared prefix.

Whoever wants whole answers, a stream, or to add requests while others run, drives the same `step`.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from tuneworth.inference.cache import Prefix, RowCache
from tuneworth.inference.choosing import ChoiceTree, Node
from tuneworth.inference.prefixes import PrefixTree
from tuneworth.inference.sampling import Sampler, Sampling, TokenLogprob
from tuneworth.models.packed import Decoder

_WORTH_COPYING = 4  # tokens of a beginning that are copied into a row rather than computed again


class Constraint(Protocol):
    """What one answer may be, token by token. Each answer has an object of its own."""

    def allowed(self) -> Tensor:
        """bool [V]: the tokens that may come next, at least one; the end token where the answer may end."""
        ...

    def take(self, token: int) -> None:
        """`token` was written."""
        ...

    @property
    def finished(self) -> bool:
        """Nothing but the end can follow."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to continue. `over` is asked after each token (with all of the answer so far) whether the answer ends
    there. `adapter` names the adapter that answers: the active one by default, "" for none. With `remember` prompt and
    answer stay in the prefix tree, for requests that go on from them.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    constraint: Constraint | None = None
    over: Callable[[Sequence[int]], bool] | None = None
    adapter: str | None = None
    remember: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """Tokens written for one prompt. `finish_reason` is `stop` (end token, not included) or `length`.

    `seconds` is this prompt's share of the wall time of the passes that it was in. `logprobs` has one entry a token,
    and one for the end token if it was written, when they were asked for.
    """

    ids: tuple[int, ...]
    finish_reason: str
    seconds: float
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """What one pass brought for a request: a token, or None; and the whole answer when it is finished."""

    ticket: int
    token: int | None
    done: Generation | None


@dataclass(slots=True)
class _Row:
    ticket: int
    request: Request
    tail: list[int]  # of the prompt, behind the shared prefix
    sampler: Sampler
    node: Node | None
    written: list[int] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """`batch_tokens` are read in one pass, `rows` written in one pass, `row_bytes` held of rows (one always fits)."""

    batch_tokens: int
    rows: int
    row_bytes: int


class Batch:
    """Requests behind one shared prefix; with `tree`, each answer is one of its choices."""

    def __init__(
        self,
        decoder: Decoder,
        prefixes: PrefixTree,
        prefix: Prefix,
        *,
        end_id: int,
        device: str,
        limits: Limits,
        token_bytes: int,
        tree: ChoiceTree | None = None,
    ) -> None:
        self._decoder = decoder
        self._prefixes = prefixes
        self._cache = RowCache(prefix, device, many_passes=tree is None)
        self._end_id = end_id
        self._device = device
        self._limits = limits
        self._token_bytes = token_bytes
        self._tree = tree
        self._allowed = torch.tensor(tree.tokens, device=device) if tree else None
        self._waiting: deque[_Row] = deque()
        self._rows: list[_Row] = []
        self._tickets = itertools.count()
        self._slots = 0

    @property
    def busy(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self._waiting or self._rows)

    def add(self, request: Request) -> int:
        """Have a request wait for its turn; returns the ticket that its steps carry."""
        row = _Row(
            next(self._tickets), request, list(request.prompt[self._cache.prefix.tokens :]),
            Sampler(request.sampling, request.prompt), self._tree.root if self._tree else None,
        )  # fmt: skip
        self._waiting.append(row)
        # Room for the longest at once: a cache that grows with every row is copied with every row.
        self._slots = max(self._slots, len(row.tail) + request.max_new_tokens)
        return row.ticket

    def cancel(self, ticket: int) -> None:
        """Forget a request, finished or not."""
        self._waiting = deque(row for row in self._waiting if row.ticket != ticket)
        for place, row in enumerate(self._rows):
            if row.ticket == ticket:
                self._leave(place)
                break

    @torch.no_grad()
    def step(self) -> list[Step]:
        """One pass: waiting requests are read while there is room for them, else every row gets a token."""
        start = time.perf_counter()
        joined = self._admitted()
        if joined:
            first = len(self._rows) - len(joined)
            held = self._cache.lengths[first:]
            tokens = [row.tail[n:] for row, n in zip(joined, held, strict=True)]
        else:
            first, joined = 0, list(self._rows)
            tokens = [[row.written[-1]] for row in joined]
        if not joined:
            return []
        chosen = self._choose(joined, self._forward(joined, tokens, first))
        share = (time.perf_counter() - start) / len(joined)
        steps, leaving = [], []
        for place, (row, token) in enumerate(zip(joined, chosen, strict=True), first):
            row.seconds += share
            step = self._taken(row, token)
            steps.append(step)
            if step.done is not None:
                leaving.append(place)
        for place in reversed(leaving):
            self._leave(place)
        return steps

    def _admitted(self) -> list[_Row]:
        """Waiting requests that join now."""
        joining: list[_Row] = []
        beginnings: list[Prefix] = []
        tokens = 0
        fitting = self._limits.row_bytes // max(1, self._slots * self._token_bytes)
        most = min(self._limits.rows, max(1, fitting), len(self._rows) + len(self._waiting))
        while self._waiting and len(self._rows) < most:
            row = self._waiting[0]
            beginning = self._known(row)
            new = len(row.tail) - beginning.tokens
            if joining and tokens + new > self._limits.batch_tokens:
                break
            tokens += new
            self._rows.append(row)
            joining.append(row)
            beginnings.append(beginning)
            self._waiting.popleft()
        if joining:
            self._cache.reserve(max(most, len(self._rows)), self._slots)
            self._cache.join(beginnings)
        return joining

    def _known(self, row: _Row) -> Prefix:
        """What the tree holds of a row's prompt behind the shared prefix; the last token is always read."""
        shared = self._cache.prefix.tokens
        prompt = row.request.prompt[:-1]
        found = self._prefixes.matched(prompt, row.request.adapter)
        if found < shared + _WORTH_COPYING:
            return Prefix.empty()
        return self._prefixes.longest(prompt, row.request.adapter).cut(shared, found)

    def _forward(self, rows: Sequence[_Row], tokens: Sequence[list[int]], first: int) -> Tensor:
        """Logits [N, V] behind the last token of each row, or of the choices' tokens alone."""
        counts = [len(some) for some in tokens]
        positions = self._cache.feed(counts, first)
        ends = torch.tensor(counts, device=self._device).cumsum(0) - 1
        return self._decoder(
            torch.tensor([token for some in tokens for token in some], device=self._device),
            torch.tensor(positions, device=self._device),
            self._cache,
            ends,
            allowed=self._allowed,
            adapters=self._adapters(rows, counts),
        )

    def _adapters(self, rows: Sequence[_Row], counts: Sequence[int]) -> Tensor | None:
        wanted = [row.request.adapter for row in rows]
        if all(name is None for name in wanted):
            return None
        names = {name: number for number, name in enumerate(self._decoder.names)} | {"": -1}
        numbers = torch.tensor([names[name or ""] for name in wanted], device=self._device)
        return torch.repeat_interleave(numbers, torch.tensor(counts, device=self._device))

    def _choose(self, rows: Sequence[_Row], logits: Tensor) -> list[int]:
        """The next token of every row."""
        if self._tree is not None:
            values, chosen = logits.float().cpu().numpy(), []
            for row, some in zip(rows, values, strict=True):
                assert row.node is not None
                chosen.append(self._tree.tokens[row.node.places[int(some[row.node.places].argmax())]])
            return chosen
        greedy: list[int] = logits.max(-1).indices.tolist()  # on a processor five times as fast as argmax
        for place, row in enumerate(rows):
            if row.request.constraint is not None:
                greedy[place] = row.sampler.choose(logits[place], row.request.constraint.allowed())
            elif not row.sampler.greedy:
                greedy[place] = row.sampler.choose(logits[place])
            else:
                row.sampler.note(logits[place], greedy[place])
        return greedy

    def _taken(self, row: _Row, token: int) -> Step:
        """A row after `token`."""
        request = row.request
        if row.node is not None:
            row.node = row.node.children[token]
            row.written.append(token)
            if row.node.only is None:
                return Step(row.ticket, token, None)
            assert self._tree is not None
            return Step(row.ticket, token, self._finished(row, self._tree.choices[row.node.only], "stop"))
        if token == self._end_id:
            return Step(row.ticket, None, self._finished(row, row.written, "stop"))
        row.written.append(token)
        if request.constraint is not None:
            request.constraint.take(token)
        if (request.constraint is not None and request.constraint.finished) or (
            request.over is not None and request.over(row.written)
        ):
            return Step(row.ticket, token, self._finished(row, row.written, "stop"))
        if len(row.written) >= request.max_new_tokens:
            return Step(row.ticket, token, self._finished(row, row.written, "length"))
        return Step(row.ticket, token, None)

    def _finished(self, row: _Row, ids: Sequence[int], reason: str) -> Generation:
        return Generation(tuple(ids), reason, row.seconds, tuple(row.sampler.logprobs))

    def _leave(self, place: int) -> None:
        row, shared = self._rows[place], self._cache.prefix.tokens
        if row.request.remember:
            whole = [*row.request.prompt, *row.written]
            stop = shared + self._cache.lengths[place]
            held = self._prefixes.matched(whole[:stop], row.request.adapter)
            if shared <= held < stop:
                part = self._cache.of_row(place, held - shared)
                self._prefixes.insert(whole[:stop], held, part, row.request.adapter)
        last = self._cache.leave(place)
        self._rows[place] = self._rows[last]
        self._rows.pop()
        if not self.busy:
            self._slots = 0
