"""Generation from token ids: requests side by side, common beginnings computed once and kept, weights packed.

Knows no text. Greedy generation is what evaluation uses; cached and batched it equals plain generation (LAW 6).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from tuneworth.inference.batch import Batch, Generation, Limits, Request
from tuneworth.inference.cache import Prefix, RowCache, token_bytes
from tuneworth.inference.choosing import ChoiceTree
from tuneworth.inference.prefixes import PrefixTree
from tuneworth.inference.scoring import Scores, score_rows
from tuneworth.models.packed import decoder_of

CACHE_BYTES = 1 << 29
"""Memory of keys and values that an engine holds at most: half for beginnings, half for rows."""


# A pass of 4 rows takes 17 ms with a beginning of 24 to 200 tokens in each row, 20 with one for all; of 32 rows 43 and
# 47 ms with 24 tokens, equally many with 128 (docs/log.md).
_WORTH_SHARING = 64


class Engine:
    """A causal model ready to continue token ids. Follows its weights: what was computed with others is forgotten.

    Not thread-safe.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        end_id: int,
        device: str = "cpu",
        batch_tokens: int = 1024,
        batch_rows: int = 64,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """`batch_tokens` are read and `batch_rows` rows written in one pass; see CACHE_BYTES."""
        self._decoder = decoder_of(model)
        self._end_id = end_id
        self._device = device
        self._prefixes = PrefixTree(cache_bytes // 2)
        self._limits = Limits(batch_tokens, batch_rows, cache_bytes // 2)
        config: Any = model.config
        self._token_bytes = token_bytes(config, next(model.parameters()).dtype)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        choices: Sequence[Sequence[int]] = (),
        on_done: Callable[[int], None] = lambda rows: None,
    ) -> list[Generation]:
        """Continue every prompt greedily for at most `max_new_tokens` tokens; answers in the order of the prompts.

        With `choices` (token ids each) every answer is one of them: at each token the likeliest that still leads to
        a choice is taken, and a row is finished as soon as only one choice is left.
        `on_done` is called with the number of prompts finished whenever some are.
        """
        tree = ChoiceTree.of(choices, self._end_id) if choices else None
        room = max(map(len, choices)) if choices else max_new_tokens
        return self.answer([Request(prompt, room) for prompt in prompts], tree=tree, on_done=on_done)

    def answer(
        self,
        requests: Sequence[Request],
        *,
        tree: ChoiceTree | None = None,
        on_done: Callable[[int], None] = lambda rows: None,
    ) -> list[Generation]:
        """Every request's answer, in their order; see `generate` for the rest."""
        batch = self.batch(requests, tree)
        # Rows of like length side by side need little padding.
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt))
        tickets = {batch.add(requests[index]): index for index in order}
        answers: dict[int, Generation] = {}
        while batch.busy:
            before = len(answers)
            for step in batch.step():
                if step.done is not None:
                    answers[tickets[step.ticket]] = step.done
            if len(answers) > before:
                on_done(len(answers) - before)
        return [answers[index] for index in range(len(requests))]

    @torch.no_grad()
    def score(
        self,
        prompts: Sequence[Sequence[int]],
        choices: Sequence[Sequence[int]],
        *,
        everything: bool = False,
        on_done: Callable[[int], None] = lambda rows: None,
    ) -> list[Scores]:
        """Which of `choices` is the likeliest answer to each prompt, exactly, with what is known of all probabilities.

        With `everything` all choices are scored, whether they can be the best or not.
        """
        if not prompts:
            return []
        tree = ChoiceTree.of(choices, self._end_id)
        if self._decoder.refresh():
            self._prefixes.clear()
        prefix = self._shared([Request(prompt, 0) for prompt in prompts])
        found: dict[int, Scores] = {}
        order = deque(sorted(range(len(prompts)), key=lambda i: len(prompts[i])))
        while order:
            batch: list[int] = []
            while order and len(batch) < self._limits.rows:
                if batch and (len(batch) + 1) * (len(prompts[order[0]]) - prefix.tokens) > self._limits.batch_tokens:
                    break
                batch.append(order.popleft())
            tails = [list(prompts[index][prefix.tokens :]) for index in batch]
            scores = score_rows(
                self._decoder, prefix, tails, tree, device=self._device, everything=everything, clock=time.perf_counter
            )
            found |= dict(zip(batch, scores, strict=True))
            on_done(len(batch))
        return [found[index] for index in range(len(prompts))]

    def forget(self) -> None:
        """Keep nothing of what was computed: the next answer is as that of a new engine."""
        self._prefixes.clear()

    def stream(self, request: Request) -> Iterator[int]:
        """The tokens of one answer as they come, the end token not included."""
        batch = self.batch([request])
        batch.add(request)
        while batch.busy:
            for step in batch.step():
                if step.token is not None:
                    yield step.token

    @torch.no_grad()
    def batch(self, requests: Sequence[Request], tree: ChoiceTree | None = None) -> Batch:
        """An empty batch behind what all of `requests` share; they, or others that begin so, are still to be added."""
        if self._decoder.refresh():
            self._prefixes.clear()
        # A lone answer reads its row at every token, and others are read in one go with a short beginning: it is copied
        # there. Where a few tokens decide it never pays.
        shared = self._shared(requests) if len(requests) > 1 or tree is not None else Prefix.empty()
        return Batch(
            self._decoder,
            self._prefixes,
            shared if tree is not None or shared.tokens >= _WORTH_SHARING else Prefix.empty(),
            end_id=self._end_id,
            device=self._device,
            limits=self._limits,
            token_bytes=self._token_bytes,
            tree=tree,
        )

    def _shared(self, requests: Sequence[Request]) -> Prefix:
        """The beginning that all requests share, from the tree or computed; each keeps at least its last token."""
        if not requests or len({request.adapter for request in requests}) > 1:
            return Prefix.empty()
        adapter = requests[0].adapter
        if len(requests) == 1:
            return self._prefixes.longest(requests[0].prompt[:-1], adapter)
        prompts = sorted(tuple(request.prompt) for request in requests)
        first, last = prompts[0], prompts[-1]
        most = min(map(len, prompts)) - 1
        shared = 0
        while shared < most and first[shared] == last[shared]:
            shared += 1
        found = self._prefixes.longest(first[:shared], adapter)
        if found.tokens == shared:
            return found
        rest = self._read(first[found.tokens : shared], found, adapter)
        self._prefixes.insert(first[:shared], found.tokens, rest, adapter)
        return Prefix.joined([found, rest])

    def _read(self, ids: Sequence[int], before: Prefix, adapter: str | None) -> Prefix:
        """Keys and values of `ids` behind `before`."""
        cache = RowCache(before, self._device)
        cache.reserve(1, len(ids))
        cache.join([Prefix.empty()])
        positions = torch.tensor(cache.feed([len(ids)]), device=self._device)
        adapters = None
        if adapter is not None:
            number = self._decoder.names.index(adapter) if adapter else -1
            adapters = torch.full_like(positions, number)
        tokens = torch.tensor(ids, device=self._device)
        self._decoder(tokens, positions, cache, torch.tensor([0], device=self._device), adapters=adapters)
        return cache.of_row(0)
