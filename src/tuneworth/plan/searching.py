"""How a search of settings divides its time: many short trainings, the best of them longer (successive halving).

All settings are tried on few rows, the best `1 / FACTOR` of them on `FACTOR` times as many, and so on (Jamieson &
Talwalkar 2016). Each training begins anew, so that its learning rate falls to zero at its own end.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuneworth.plan.racing import Pace

FACTOR = 3
SEARCH_SHARE = 0.4  # of the time that is left
_SLACK = 1.12  # as in budget: rates are measured on a few batches
_TRIALS = (12, 8, 5)  # the most that the time allows
_LENGTHS = (3, 2)  # different lengths of trainings, likewise
_LEAST_STEPS, _LEAST_JUDGED, _MOST_JUDGED = 8, 30, 200
_JUDGING_SHARE = 0.4  # of the time that answering validation may take, beyond the least


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """At most `trials` settings, trained on as many rows as `rows` says (repeats count), the shortest first; `judged`
    validation rows choose among them, as many others say what was won; in at most `seconds`."""

    trials: int
    rows: tuple[int, ...]
    judged: int
    seconds: float


def plan_search(
    pace: Pace, allowance_seconds: float, whole_rows: int, validation: int, batch_size: int
) -> SearchPlan | str:
    """The search that `allowance_seconds` allow, or why there is none.

    `whole_rows` are those of the training that is to come, `validation` those that there are.
    """
    if validation < 2 * _LEAST_JUDGED:
        return (
            f"{validation} validation rows are too few to choose settings and to judge the choice ({2 * _LEAST_JUDGED})"
        )
    least = _LEAST_STEPS * batch_size
    for trials in _TRIALS:
        for lengths in _LENGTHS:
            found = _divided(pace, allowance_seconds, whole_rows, validation, batch_size, trials, lengths)
            if found.rows[0] >= least:
                return found
    if whole_rows < FACTOR * least:
        return f"a training of {whole_rows:,} rows is too short to be shortened"
    return f"{allowance_seconds:.0f} s are too few for it; give a longer budget"


def _divided(
    pace: Pace, allowance: float, whole_rows: int, validation: int, batch_size: int, trials: int, lengths: int
) -> SearchPlan:
    trainings = [trials]  # of each length; the settings by rule are trained at all of them
    while len(trainings) < lengths:
        trainings.append(-(-trainings[-1] // FACTOR) + 1)
    answering = (sum(trainings) + trainings[-1]) * pace.answer_a_row  # of one more row of both kinds
    room = allowance / _SLACK - pace.load
    judged = min(max(_LEAST_JUDGED, int(_JUDGING_SHARE * room / answering)), validation // 2, _MOST_JUDGED)
    parts = [FACTOR ** (lengths - 1 - place) for place in range(lengths)]
    a_row = pace.train_a_row * sum(count / part for count, part in zip(trainings, parts, strict=True))
    longest = min(whole_rows, int((room - judged * answering) / a_row))
    rows = tuple(longest // part // batch_size * batch_size for part in parts)
    return SearchPlan(trials, rows, judged, allowance)
