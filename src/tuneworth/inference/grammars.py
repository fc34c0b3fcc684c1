"""Answers that must fit a JSON Schema, a regular expression or a grammar, by llguidance: text rules become token masks.

A grammar is compiled once; every answer gets a matcher of its own, which is the engine's Constraint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from tuneworth.errors import InputError
from tuneworth.rendering import Renderer


class Grammars:
    """Compiles what answers may be for one tokenizer. `vocabulary` is the number of the model's logits."""

    def __init__(self, renderer: Renderer, vocabulary: int) -> None:
        self._tokenizer = LLTokenizer(renderer.tokenizer_json, n_vocab=vocabulary, eos_token=renderer.end_id)
        self._vocabulary = vocabulary
        self._compiled: dict[str, Grammar] = {}

    def json_schema(self, schema: Mapping[str, Any] | bool) -> Grammar:
        """JSON that the schema allows. Raises InputError when nothing can fit it or it is no schema."""
        text = json.dumps(schema)
        return self._compile(LLMatcher.grammar_from_json_schema(text), f"the JSON Schema {_short(text)}")

    def regex(self, pattern: str) -> Grammar:
        """Text that the pattern matches whole. Raises InputError when it is no regular expression."""
        return self._compile(LLMatcher.grammar_from_regex(pattern), f"the regular expression {_short(pattern)}")

    def lark(self, grammar: str) -> Grammar:
        """Text of a context-free grammar in Lark's notation. Raises InputError when it is none."""
        return self._compile(LLMatcher.grammar_from_lark(grammar), f"the grammar {_short(grammar)}")

    def _compile(self, grammar: str, what: str) -> Grammar:
        if grammar not in self._compiled:
            matcher = LLMatcher(self._tokenizer, grammar)
            problem = matcher.get_error() if matcher.is_error() else ""
            if not problem and not any(matcher.compute_bitmask()):
                problem = "no text fits it"
            if problem:
                raise InputError(
                    f"{what} cannot be kept to: {problem.strip()}", cure="change it so that an answer fits"
                )
            self._compiled[grammar] = Grammar(matcher, self._vocabulary)
        return self._compiled[grammar]


class Grammar:
    """What answers may be, compiled."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary

    def start(self) -> Matcher:
        """The constraint of one answer, at its beginning."""
        return Matcher(self._matcher.deep_copy(), self._vocabulary)


class Matcher:
    """See inference.batch.Constraint."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary

    def allowed(self) -> Tensor:
        """See Constraint. Raises InputError when the grammar grew too large to go on."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise InputError(f"the answer's grammar cannot be followed: {self._matcher.get_error()}")
        return torch.from_numpy(np.unpackbits(bits, count=self._vocabulary, bitorder="little").view(bool))

    def take(self, token: int) -> None:
        """See Constraint."""
        self._matcher.consume_token(token)

    @property
    def finished(self) -> bool:
        """See Constraint."""
        return bool(self._matcher.is_stopped())


def _short(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
