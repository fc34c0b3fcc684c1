"""Answers that must fit a JSON Schema, a regular expression or a grammar, by llguidance: text rules become token masks.

A grammar is compiled once; every answer gets a matcher of its own, which is the engine's Constraint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from tuneworth.errors import InputError
from tuneworth.rendering import Renderer

OPEN_SHARE = 0.8
"""Of the tokens that a JSON answer may have, what it may use before it is closed."""
_SLACK = 1.25  # a model may spell names of fields in more tokens than need be
_LONGEST_LEAST = 1000


class Grammars:
    """Compiles what answers may be for one tokenizer. `vocabulary` is the number of the model's logits."""

    def __init__(self, renderer: Renderer, vocabulary: int) -> None:
        self._tokenizer = LLTokenizer(renderer.tokenizer_json, n_vocab=vocabulary, eos_token=renderer.end_id)
        self._vocabulary = vocabulary
        self._compiled: dict[str, Grammar] = {}
        texts = {self._tokenizer.decode_bytes([token]): token for token in range(self._tokenizer.vocab_size)}
        self._closers = tuple(texts[sign] for sign in (b'"', b"]", b"}") if sign in texts)

    def json_schema(self, schema: Mapping[str, Any] | bool) -> Grammar:
        """JSON that the schema allows, on one line, with a blank at most between its parts: an unsure model would
        write blanks for ever, or one item of a list after the other, see `Grammar.start`. Raises InputError when
        nothing can fit it or it is no schema."""
        text = json.dumps({"allOf": [schema]} if isinstance(schema, bool) else schema)
        grammar = LLMatcher.grammar_from_json_schema(text, {"whitespace_pattern": " ?"})
        return self._compile(grammar, f"the JSON Schema {_short(text)}", self._closers)

    def regex(self, pattern: str) -> Grammar:
        """Text that the pattern matches whole. Raises InputError when it is no regular expression."""
        return self._compile(LLMatcher.grammar_from_regex(pattern), f"the regular expression {_short(pattern)}")

    def lark(self, grammar: str) -> Grammar:
        """Text of a context-free grammar in Lark's notation. Raises InputError when it is none."""
        return self._compile(LLMatcher.grammar_from_lark(grammar), f"the grammar {_short(grammar)}")

    def _compile(self, grammar: str, what: str, closers: Sequence[int] = ()) -> Grammar:
        if grammar not in self._compiled:
            matcher = LLMatcher(self._tokenizer, grammar)
            problem = matcher.get_error() if matcher.is_error() else ""
            if not problem and not any(matcher.compute_bitmask()):
                problem = "no text fits it"
            if problem:
                raise InputError(
                    f"{what} cannot be kept to: {problem.strip()}", cure="change it so that an answer fits"
                )
            self._compiled[grammar] = Grammar(matcher, self._vocabulary, closers)
        return self._compiled[grammar]


class Grammar:
    """What answers may be, compiled. `closers` are tokens that end what is open, the innermost first."""

    def __init__(self, matcher: LLMatcher, vocabulary: int, closers: Sequence[int] = ()) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._closers = tuple(closers)

    def start(self, room: int | None = None) -> Matcher:
        """The constraint of one answer, at its beginning. JSON that has used OPEN_SHARE of `room` tokens, or has
        no more left than its shortest answer takes, is closed: texts, lists and objects end where they may."""
        if room is None or not self._closers:
            return Matcher(self._matcher.deep_copy(), self._vocabulary)
        return self._closed_after(int(min(OPEN_SHARE * room, room - _SLACK * self._least_tokens)))

    @cached_property
    def _least_tokens(self) -> int:
        """How long an answer is that is closed from its beginning."""
        matcher = self._closed_after(0)
        return next(number for number in range(_LONGEST_LEAST + 1) if number == _LONGEST_LEAST or not matcher.step())

    def _closed_after(self, tokens: int) -> Matcher:
        return Matcher(self._matcher.deep_copy(), self._vocabulary, self._closers, tokens)

    def allows(self, ids: Sequence[int]) -> bool:
        """Whether an answer may be these tokens, whole."""
        matcher = self._matcher.deep_copy()
        return bool(matcher.try_consume_tokens(list(ids)) == len(ids) and matcher.is_accepting())


class Matcher:
    """See inference.batch.Constraint."""

    def __init__(
        self, matcher: LLMatcher, vocabulary: int, closers: Sequence[int] = (), open_tokens: int | None = None
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._closers = closers
        self._open_tokens = open_tokens
        self._taken = 0

    @property
    def closing(self) -> bool:
        """Whether the answer has been so long that it is brought to an end."""
        return self._open_tokens is not None and self._taken >= self._open_tokens

    def step(self) -> bool:
        """Take the next token of a short answer; False when there is none to take."""
        if self.finished or self._matcher.is_accepting():
            return False
        forced = self._matcher.compute_ff_tokens()
        self.take(forced[0] if forced else int(self.allowed().int().argmax()))
        return True

    def allowed(self) -> Tensor:
        """See Constraint. Raises InputError when the grammar grew too large to go on."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise InputError(f"the answer's grammar cannot be followed: {self._matcher.get_error()}")
        allowed = torch.from_numpy(np.unpackbits(bits, count=self._vocabulary, bitorder="little").view(bool))
        # Within a text a bracket is only a letter, so the quote comes first.
        closer = next((token for token in self._closers if allowed[token]), None) if self.closing else None
        if closer is not None:
            allowed = torch.zeros_like(allowed)
            allowed[closer] = True
        return allowed

    def take(self, token: int) -> None:
        """See Constraint."""
        self._matcher.consume_token(token)
        self._taken += 1

    @property
    def finished(self) -> bool:
        """See Constraint."""
        return bool(self._matcher.is_stopped())


def _short(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
