"""Which rows may have the wrong label: where predictions that never saw the row's own label speak against it (confident
learning, Northcutt et al. 2021).

The plain classifier predicts each row from all others. That ranks planted errors better than the out-of-fold
probability of a logistic regression does, and takes a second where that takes a minute (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneworth.data.plain import features_of, labels_follow, scores_without_own

ODDS = 10.0
"""How many times likelier another label has to be for a label to count as wrong. The class averages that confident
learning compares with were measured too: they name fewer of the planted errors at the same precision."""


@dataclass(frozen=True, slots=True)
class Doubts:
    """How doubtful the label of each row is: `doubt` is larger for worse ones, `likelier` is the label that the other
    rows speak for, `wrong` marks rows for which they do so at odds of `ODDS` to one."""

    doubt: NDArray[np.float64]
    likelier: NDArray[np.int64]
    wrong: NDArray[np.bool_]


def doubts(texts: Sequence[str], labels: NDArray[np.int64], seed: int = 0) -> Doubts:
    """Doubts about labels 0 to K-1, of which K is at least 2; no label counts as wrong where labels do not follow from
    texts (the right answer among four, say). Raises ValueError when no word is in two texts."""
    scores = scores_without_own(features_of(texts, seed), labels)
    rows = np.arange(len(labels))
    own = scores[rows, labels]
    likelier = scores.argmax(axis=1)
    wrong = (scores[rows, likelier] - own > np.log(ODDS)) & labels_follow(scores, labels)
    return Doubts(-own, likelier, wrong)
