"""Chat: the reply to the last turn, likeness to the wanted one, and checks of form."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tuneworth.data.example import Example
from tuneworth.evaluation.metrics.metric import Kit
from tuneworth.evaluation.metrics.texts import text_kit, text_totals
from tuneworth.evaluation.records import Answer

_SPEAKER = re.compile(r"^\s*(user|human|customer|assistant|system|bot|ai)\s*:", re.IGNORECASE | re.MULTILINE)
_RUN, _TIMES = 6, 3


def chat_kit() -> Kit:
    """Reading and measuring replies. The main metric is ROUGE-L of the last reply, for want of a judge: it is the same
    for every arm and needs no second model, but it only says how alike a reply is to the one in the data. A good reply
    in other words scores low for every arm, so a difference between arms means more than the height of a score. The
    loss of every turn stands beside it in arm.json (`turns`); checks of form are among the further numbers.
    """
    return replace(text_kit(), totals=_totals)


def speaks_for_others(text: str) -> bool:
    """Whether a reply goes on to write the user's next message, or names who speaks."""
    return _SPEAKER.search(text) is not None


def repeats_itself(text: str) -> bool:
    """Whether six words in a row stand in a reply three times: a loop, not a refrain."""
    words = text.casefold().split()
    runs = Counter(tuple(words[n : n + _RUN]) for n in range(len(words) - _RUN + 1))
    return any(times >= _TIMES for times in runs.values())


def _totals(examples: Sequence[Example], answers: Sequence[Answer]) -> dict[str, Any]:
    count = len(answers)
    return {
        **text_totals(examples, answers),
        "speaks_for_others": sum(speaks_for_others(a.raw) for a in answers) / count,
        "repeats_itself": sum(repeats_itself(a.raw) for a in answers) / count,
    }
