"""A distilled arm in the plan: the time that all other arms leave is divided into a teacher's answers and a training.

Which prompt will teach is only known when all of them were asked, so the time is reckoned with the slowest of them. As
many requests are asked (all, or a half, a quarter, an eighth of them) as leave time for the whole training; when even
an eighth does not, it is asked and the training is shorter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tuneworth.plan.budget import Allotment, Course, Rate, Rows, reserve_seconds
from tuneworth.task.schema import format_seconds

TEACHING = "teaching"
"""The stage of the budget in which the teacher is chosen and answers."""
_PARTS = (1, 2, 4, 8)
FEWEST = 20
"""Requests. Fewer teach nothing that could be seen."""


@dataclass(frozen=True, slots=True)
class Teachers:
    """The prompting arms that are planned: how fast each answers, and those that are not asked validation to choose."""

    rates: Mapping[str, Rate]
    unchosen: tuple[str, ...]


def with_teaching(
    allotment: Allotment, name: str, rows: Rows, requests: int, teachers: Teachers, course: Course
) -> Allotment:
    """`allotment` with the arm `name` in it, taught by one of `teachers` on some of `requests`, or left out with the
    reason. `course` is its training."""
    budget = sum(allotment.seconds.values())
    left = allotment.seconds["reserve"] - reserve_seconds(budget)
    if not teachers.rates:
        return _without(allotment, name, "no prompting arm is planned that could teach it")
    if requests < FEWEST:
        return _without(allotment, name, f"{requests} requests are left to learn from, {FEWEST} are needed")
    slowest = max(teachers.rates.values(), key=lambda rate: rate.seconds(rows.validation))
    choosing = sum(teachers.rates[arm].seconds(rows.validation) for arm in teachers.unchosen)
    rows = replace(rows, test=allotment.test_rows)
    options = sorted({max(FEWEST, requests // part) for part in _PARTS}, reverse=True)

    def needed(count: int) -> tuple[float, Rows]:
        return choosing + slowest.seconds(count), replace(rows, train=rows.train + count)

    for count in options:
        asking, learnt = needed(count)
        if asking + course.wish(learnt) <= left or count == options[-1]:
            break
    found = course.fit(left - asking, learnt, further=bool(allotment.trainings))
    if isinstance(found, str):
        would_do = format_seconds(budget + 1.1 * (asking + course.wish(learnt) - left))
        what = f"the budget leaves {max(0.0, left):.0f} s for it, {count} answers of a teacher need {asking:.0f} s"
        return _without(
            allotment, name, f"{what} and its training {course.wish(learnt):.0f} s; one of {would_do} would do"
        )
    whole = found.seconds + course.answer.seconds(rows.test)
    seconds = {**allotment.seconds, TEACHING: asking, name: whole}
    seconds["reserve"] -= asking + whole
    return replace(allotment, seconds=seconds, trainings={**allotment.trainings, name: found}, taught=count)


def _without(allotment: Allotment, name: str, why: str) -> Allotment:
    return replace(allotment, skipped={**allotment.skipped, name: why})
