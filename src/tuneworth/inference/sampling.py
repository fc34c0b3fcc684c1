"""From logits to the next token: greedy or drawn, with the usual limits and penalties. Knows token ids only.

Order: bias and penalties change the logits, the temperature divides them, then top-k, top-p (nucleus, Holtzman et al.
2020, arXiv:1904.09751) and min-p (Nguyen et al. 2024, arXiv:2407.01082) each limit the candidates, and one is drawn.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tuneworth.errors import InputError

_FEW = 1024  # candidates that are looked at before the whole vocabulary is put in order


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. The defaults are greedy: temperature 0 takes the likeliest token.

    `repetition_penalty` divides the logits of tokens that stand in prompt or answer (Keskar et al. 2019,
    arXiv:1909.05858); `presence_penalty` and `frequency_penalty` are taken off those that stand in the answer, once or
    for each time (as OpenAI defines them). `logit_bias` holds (token, added logit). `logprobs` asks for the log
    probability of every token and of that many alternatives, before bias, penalties and temperature.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    logprobs: int | None = None

    def __post_init__(self) -> None:
        """Raises InputError that names every value out of its range."""
        ranges = {
            "temperature": self.temperature >= 0,
            "top_p": 0 < self.top_p <= 1,
            "top_k": self.top_k >= 0,
            "min_p": 0 <= self.min_p <= 1,
            "repetition_penalty": self.repetition_penalty > 0,
            "presence_penalty": -2 <= self.presence_penalty <= 2,
            "frequency_penalty": -2 <= self.frequency_penalty <= 2,
            "logprobs": self.logprobs is None or 0 <= self.logprobs <= 20,
        }
        wrong = [f"{name} {getattr(self, name)}" for name, fits in ranges.items() if not fits]
        if wrong:
            raise InputError(
                f"out of range: {', '.join(wrong)}",
                cure="temperature, top_k and logprobs from 0 (logprobs up to 20), top_p over 0 up to 1, min_p 0 to 1, "
                "repetition_penalty over 0, the other penalties -2 to 2",
            )

    def copies(self, n: int) -> list[Sampling]:
        """The same for `n` answers to one prompt, each with a seed of its own; the first keeps this seed."""
        others = [replace(self, seed=zlib.crc32(f"{self.seed} {copy}".encode())) for copy in range(1, n)]
        return [self, *others]

    @property
    def changes_logits(self) -> bool:
        """Whether bias or penalties are asked for."""
        neutral = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) == (1, 0, 0)
        return not neutral or bool(self.logit_bias)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log probability of a token that was written, and the likeliest alternatives (token, log probability)."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Sampler:
    """Chooses the tokens of one answer. Its chance is its own, so batch mates do not matter."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self._sampling = sampling
        self._chance = torch.Generator().manual_seed(sampling.seed % (1 << 32))
        self._prompt = set(prompt) if sampling.repetition_penalty != 1 else set()
        self._written: Counter[int] = Counter()
        self.greedy = sampling.temperature == 0 and not sampling.changes_logits
        self.logprobs: list[TokenLogprob] = []

    def choose(self, logits: Tensor, allowed: Tensor | None = None) -> int:
        """The next token by logits [V]; one of `allowed` (bool [V]) if given."""
        exact = logits.detach().to("cpu", torch.promote_types(logits.dtype, torch.float32), copy=True)
        if self._sampling.changes_logits:
            self._change(exact)
        if allowed is not None:
            exact.masked_fill_(~allowed, float("-inf"))
        token = int(exact.argmax()) if self._sampling.temperature == 0 else self._draw(exact)
        self.note(logits, token)
        return token

    def note(self, logits: Tensor, token: int) -> None:
        """Token was written where the model gave `logits` [V]."""
        if self._sampling.changes_logits:
            self._written[token] += 1
        if self._sampling.logprobs is not None:
            logs = torch.log_softmax(logits.double(), -1)
            best = torch.topk(logs, self._sampling.logprobs)
            top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            self.logprobs.append(TokenLogprob(float(logs[token]), top))

    def _change(self, logits: Tensor) -> None:
        wanted = self._sampling
        if wanted.repetition_penalty != 1:
            seen = torch.tensor(sorted(self._prompt | set(self._written)), dtype=torch.long)
            old = logits[seen]
            logits[seen] = torch.where(old > 0, old / wanted.repetition_penalty, old * wanted.repetition_penalty)
        if self._written and (wanted.presence_penalty or wanted.frequency_penalty):
            tokens = torch.tensor(list(self._written))
            counts = torch.tensor(list(self._written.values()), dtype=logits.dtype)
            logits[tokens] -= wanted.presence_penalty + wanted.frequency_penalty * counts
        for token, bias in wanted.logit_bias:
            logits[token] += bias

    def _draw(self, logits: Tensor) -> int:
        wanted = self._sampling
        logits = logits.double() / wanted.temperature
        if wanted.top_k or wanted.top_p < 1 or wanted.min_p:
            logits, tokens = self._candidates(logits)
        else:
            tokens = None
        # Inverse of the distribution function: one number of chance a token, whatever the limits.
        sums = torch.softmax(logits, -1).cumsum(-1)
        point = torch.rand((), generator=self._chance, dtype=torch.float64) * sums[-1]
        place = min(int(torch.searchsorted(sums, point, right=True)), len(sums) - 1)
        return place if tokens is None else int(tokens[place])

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and tokens within the limits, the likeliest first."""
        wanted = self._sampling
        total = torch.logsumexp(logits, -1)
        few = min(len(logits), wanted.top_k or _FEW)
        best, tokens = torch.topk(logits, few)
        if wanted.top_k:
            total = torch.logsumexp(best, -1)
        chances = torch.exp(best - total)
        enough = float(chances.sum()) >= wanted.top_p or bool(chances[-1] < wanted.min_p * chances[0])
        if not wanted.top_k and few < len(logits) and not enough:
            best, tokens = torch.sort(logits, descending=True)
            chances = torch.exp(best - total)
        if wanted.top_p < 1:
            before = chances.cumsum(-1) - chances
            inside = int((before < wanted.top_p).sum())  # the token that reaches top_p is the last one in
            best, tokens, chances = best[:inside], tokens[:inside], chances[:inside]
        if wanted.min_p:
            inside = int((chances >= wanted.min_p * chances[0]).sum())
            best, tokens = best[:inside], tokens[:inside]
        return best, tokens
