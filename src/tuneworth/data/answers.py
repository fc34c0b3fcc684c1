"""What an answer looks like from outside: cut off, a refusal, a placeholder. Rules of form, not of meaning."""

from __future__ import annotations

import re

_ENDS = frozenset(".!?\u2026\u3002\uff01\uff1f\"'\u201d\u2019\u00bb)]}`>*|:;%")
_LONG_ENOUGH = 40
_OPEN_ENDS = frozenset(",([{-\u2013\u2014/&+=")
_HANGING = re.compile(
    r"(?:\b(?:the|a|an|and|or|but|of|to|in|on|at|by|with|from|for|is|are|was|were|be|that|which|who|because|if|as|than"
    r"|my|your|his|her|its|their|our|this|these|not|can|will|would|should|has|have|had|into|about))$"
)
_BOILERPLATE = re.compile(
    r"(?i)^\W{0,3}(?:as an? (?:ai|artificial intelligence|large language)"
    r"|i(?:'|\u2019)?m (?:sorry|afraid),? (?:but )?(?:i|as an ai)|i am (?:sorry,? but|unable to)"
    r"|i cannot (?:help|assist|fulfil|answer|provide)|i can(?:'|\u2019)?t (?:help|assist|answer|fulfil)"
    r"|sorry, (?:but )?i can(?:'|\u2019|no)?t|lorem ipsum"
    r"|(?:todo|tbd|n/?a|none|null|nan|placeholder|xxx+|test|\?+|-+|\.+)\W{0,3}$)"
    r"|\[(?:your|insert|company|name)[^\]\n]{0,40}\]"
)


def is_cut_off(answer: str) -> bool:
    """Whether a text of some length stops in the middle: a hanging word or comma, an open bracket or code block."""
    text = answer.rstrip()
    if len(text) < _LONG_ENOUGH:
        return False
    if text[0] in "{[" and text[-1] not in "}]":
        return True
    if text.count("```") % 2:
        return True
    return text[-1] in _OPEN_ENDS or _HANGING.search(text[-12:].lower()) is not None


def ends_properly(answer: str) -> bool:
    """Whether a text ends with a sign that ends sentences, quotes, brackets or code."""
    text = answer.rstrip()
    return bool(text) and text[-1] in _ENDS


def is_boilerplate(answer: str) -> bool:
    """Whether an answer is a refusal, a placeholder, or a form that was never filled in."""
    return _BOILERPLATE.search(answer[:400]) is not None
