"""The search of settings: other learning rates, batch sizes and ranks against those by rule, on train and validation.

Optuna proposes, by the scores of the shortest trainings so far (tree-structured Parzen estimator, Bergstra et al.
2011); the best third goes on to longer ones (successive halving, Jamieson & Talwalkar 2016). The settings by rule are
the first trial and are trained at every length. One half of the validation rows chooses; the other half, which chose
nothing, says what the best trial won over the rule, and only if that is more than nothing (and shown, where the
trainings were short) are its settings used. The test rows are out of reach here (LAW 7).

Every training is written when it is done (search/): a search that was stopped proposes the same again and goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import optuna

from tuneworth.data.example import Example
from tuneworth.decision.statistics import compare
from tuneworth.errors import InputError
from tuneworth.evaluation.arms import Bench, stratified
from tuneworth.evaluation.metrics import main_metric
from tuneworth.evaluation.watching import Watcher
from tuneworth.pipeline.settling import settings_of
from tuneworth.pipeline.trying import Outcome, Track, Trial, first_taught, pace_of, try_out
from tuneworth.pipeline.workshop import Workshop
from tuneworth.plan import FACTOR, SEARCH_SHARE, Pace, SearchPlan, TrainingPlan, plan_search
from tuneworth.plan.budget import reserve_seconds
from tuneworth.store.atomic import read_json, write_json
from tuneworth.store.run import RunFolder
from tuneworth.task import Task, format_seconds

SCHEMA = "tuneworth.search/1"
SEARCHED = ("learning_rate", "batch_size", "rank")
"""The settings that are tried. Not the epochs: the looks at validation choose a training's best step already."""

_RATES = 4.0  # times as much as by rule at most, and as little at least
_BATCHES, _RANKS = (0.5, 1, 2), (0.5, 1, 2, 4)  # times those by rule
_RANDOM_TRIALS = 5  # the first; then what was found guides the proposals
_A_LOSS, _WORST_LOSS = 1e-4, 10.0  # what a loss counts beside a score: less than one row
_SHORT = 0.5  # of the whole training: below, what is not shown was seen to turn round


def check_search(task: Task, trained_arms: Sequence[str]) -> None:
    """Refuse a search that has nothing to try. Raises InputError."""
    if not task.training.search:
        return
    if not trained_arms:
        cure = "leave the search out, or name an arm such as lora-short"
        raise InputError(
            "a search tries trainings, and no trained arm is asked for", where="training.search", cure=cure
        )
    if not _open(task):
        raise InputError(
            f"a search tries {', '.join(SEARCHED)}, and you fixed all of them that this training has",
            where="training.search",
            cure="leave one of them open, or leave the search out",
        )


def _open(task: Task) -> list[str]:
    """The settings to try: not what the user fixed, nor the rank of a training of all weights, which has none, or of
    one that goes on from another, which has that one's."""
    has_rank = not first_taught(task).all_weights and task.training.from_ is None
    return [name for name in SEARCHED if getattr(task.training, name) is None and (has_rank or name != "rank")]


@dataclass(slots=True)
class Tried:
    """A trial: its settings, its outcomes from the shortest training on, and what became of it."""

    number: int
    settings: Mapping[str, float]
    outcomes: list[Outcome] = field(default_factory=list)
    status: str = "dropped"
    why: str | None = None


def search(task: Task, folder: RunFolder, watcher: Watcher, clock: float) -> None:
    """Write search.json, if the task asks for a search and there is none. `clock` is when the run began."""
    if not task.training.search or folder.search.is_file():
        return
    left = task.budget - (time.monotonic() - clock) - reserve_seconds(task.budget)
    found = _search(Track(task, folder, watcher, left, "search"))
    write_json(folder.search, {"schema": SCHEMA, **found})
    shutil.rmtree(folder.path / "search", ignore_errors=True)
    watcher.note(f"search: {found['why']}")


def _search(track: Track) -> dict[str, Any]:
    """The content of search.json."""
    work = track.at(track.task.model)
    bench = work.bench(0)
    rule = settings_of(work, bench, {})
    known: dict[str, Any] = {"metric": main_metric(track.task, track.splits.kind)}
    planned, pace = _planned(track, work, bench, rule)
    if isinstance(planned, str):
        return known | _nothing(track, f"the settings by rule are used, since no others were tried: {planned}")
    trials = _Search(track, work, planned, pace)
    if not trials.judging:
        return known | _nothing(track, "the settings by rule are used: all validation rows are of one group")
    values = _rule_values(track.task, rule)
    bounds = _bounds(values)
    tried = trials.run(values, bounds)
    whole = _whole_rows(rule, bench)
    concluded = trials.conclude(tried, planned.rows[-1] / whole)
    return known | {
        "searched": bounds,
        "whole_rows": whole,
        "rows": list(planned.rows),
        "trials": [_entry(track, one) for one in tried],
        **concluded,
    }


def _entry(track: Track, one: Tried) -> dict[str, Any]:
    """A row of the table of trials."""
    confidence = track.task.decision.confidence
    return {
        "settings": dict(one.settings),
        "status": "rule" if one.number == 0 else one.status,
        "why": one.why,
        "lengths": [
            {"rows": outcome.rows, "validation_rows": len(outcome.scores), "score": outcome.score,
             "interval": outcome.interval(confidence)} for outcome in one.outcomes
        ],
        "seconds": sum(outcome.seconds for outcome in one.outcomes),
    }  # fmt: skip


def _planned(track: Track, work: Workshop, bench: Bench, rule: TrainingPlan) -> tuple[SearchPlan | str, Pace]:
    """The search as it was planned before it was stopped, or as it is planned now; and the pace that it is planned
    by."""
    path = track.home.path / "plan.json"
    if path.is_file():
        kept = read_json(path)
        track.spent += kept["seconds"]
        return SearchPlan(**{**kept["plan"], "rows": tuple(kept["plan"]["rows"])}), Pace(**kept["pace"])
    start = time.perf_counter()
    track.watcher.begin("search: measuring the model", 1)
    pace = pace_of(work, track.left_seconds)
    allowance = SEARCH_SHARE * track.left_seconds
    afforded = min(_whole_rows(rule, bench), int((track.left_seconds - allowance) / pace.train_a_row))
    found = plan_search(pace, allowance, afforded, len(track.splits.validation), int(rule.batch_size.value))
    took = time.perf_counter() - start
    track.spent += took
    if isinstance(found, SearchPlan):
        kept = {"plan": asdict(found), "pace": asdict(pace), "seconds": took}
        write_json(path, {"schema": "tuneworth.search-plan/1", **kept})
    return found, pace


def _whole_rows(rule: TrainingPlan, bench: Bench) -> int:
    """Rows of the whole training, repeats counted."""
    return round(float(rule.epochs.value) * len(bench.train))


def _rule_values(task: Task, rule: TrainingPlan) -> dict[str, Any]:
    """The open settings as they are by rule."""
    values = {name: getattr(rule, name).value for name in _open(task)}
    if "learning_rate" in values and first_taught(task).all_weights:
        values["learning_rate"] = rule.full_learning_rate.value
    return values


def _bounds(rule: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What is tried of each setting: the least and the largest learning rate, and all values of the others."""
    found: dict[str, list[Any]] = {}
    if "learning_rate" in rule:
        found["learning_rate"] = [rule["learning_rate"] / _RATES, min(1.0, rule["learning_rate"] * _RATES)]
    if "batch_size" in rule:
        found["batch_size"] = sorted({max(1, min(256, int(rule["batch_size"] * times))) for times in _BATCHES})
    if "rank" in rule:
        found["rank"] = sorted({max(1, min(512, int(rule["rank"] * times))) for times in _RANKS})
    return found


def _halves(rows: Sequence[Example]) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Every other row, or every other group of rows: what is judged is independent of what chose."""
    order: dict[str, int] = {}
    for row in rows:
        order.setdefault(row.group or row.id, len(order))
    sides = [order[row.group or row.id] % 2 for row in rows]
    first, second = (tuple(r for r, side in zip(rows, sides, strict=True) if side == wanted) for wanted in (0, 1))
    return first, second


class _Search:
    """The trials of a search, one after the other."""

    def __init__(self, track: Track, work: Workshop, planned: SearchPlan, pace: Pace) -> None:
        self.track, self.work, self.planned, self.pace = track, work, planned, pace
        self.bench = work.bench(0)
        self.predicted = self.taken = 0.0
        seed, kind = track.task.seed, track.splits.kind
        self.choosing, self.judging = _halves(stratified(track.splits.validation, 2 * planned.judged, seed, kind))
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=track.task.seed, n_startup_trials=_RANDOM_TRIALS),
        )

    def run(self, rule: Mapping[str, Any], bounds: Mapping[str, Sequence[Any]]) -> list[Tried]:
        """The trials that were begun; the first has the settings by rule, and is trained at every length."""
        self.study.enqueue_trial(dict(rule))
        tried: list[Tried] = []
        for number in range(self.planned.trials):
            if number and not self._affords(0):
                break
            asked = self.study.ask()
            tried.append(Tried(number, _proposed(asked, bounds)))
            if self._train(tried[-1], 0):
                self.study.tell(asked, self._worth(tried[-1].outcomes[0]))
            else:
                self.study.tell(asked, state=optuna.trial.TrialState.FAIL)
        for place in range(1, len(self.planned.rows)):
            for one in self._kept(tried, place):
                if one.number and not self._affords(place):
                    one.status, one.why = "unfinished", "the time for the search was over"
                else:
                    self._train(one, place)
        return tried

    def _kept(self, tried: Sequence[Tried], place: int) -> list[Tried]:
        """Who is trained at the length `place`: the rule, then the best at the length before."""
        there = [one for one in tried if len(one.outcomes) == place]
        ranked = sorted(there, key=lambda one: -self._worth(one.outcomes[-1]))
        kept = ranked[: -(-len(ranked) // FACTOR)]
        return [one for one in there if one.number == 0] + [one for one in kept if one.number]

    def _train(self, one: Tried, place: int) -> bool:
        """Train a trial at a length and tell; whether it could be done."""
        outcome = self._outcome(one, place)
        told = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in one.settings.items())
        if outcome is None:
            one.status, one.why = "failed", self.track.failed[self._name(one, place)]
            return False
        one.outcomes.append(outcome)
        score, rows = self._chosen_by(outcome), self.planned.rows[place]
        self.track.watcher.note(
            f"search: {score:.3f} after {rows:,} rows with {told}{' (the rule)' * (one.number == 0)}"
        )
        return True

    def _reached_the_end(self, one: Tried) -> bool:
        """Whether a trial was trained at the greatest length."""
        return len(one.outcomes) == len(self.planned.rows)

    def _outcome(self, one: Tried, place: int) -> Outcome | None:
        """Trained and judged, now or before the search was stopped; None when that failed."""
        path = self.track.home.path / f"{self._name(one, place)}.json"
        kept = read_json(path) if path.is_file() else {}
        if kept.get("settings") != dict(one.settings):
            found = self.track.guarded(self._name(one, place), partial(self._trained, one, place))
            if found is None:
                return None
            kept = {"settings": dict(one.settings), "tried": asdict(found)}
            write_json(path, {"schema": "tuneworth.tried/1", **kept})
        outcome = Outcome.of_json(kept["tried"])
        self.track.spent += outcome.seconds
        self.taken += outcome.seconds
        self.predicted += self._predicted(place)
        return outcome

    def _trained(self, one: Tried, place: int) -> Outcome:
        rows, kind = self.planned.rows[place], self.bench.kind
        settings = settings_of(self.work, self.bench, one.settings)
        learnt = stratified(self.bench.train, min(rows, len(self.bench.train)), self.track.task.seed, kind)
        steps = max(1, rows // int(settings.batch_size.value))
        name, seconds = self._name(one, place), rows * self.pace.train_a_row
        trial = Trial(name, settings, learnt, steps, self.choosing, self._judging(place), seconds)
        return try_out(self.track, self.work, trial)

    def _judging(self, place: int) -> tuple[Example, ...]:
        """The rows that say what was won are asked at the greatest length only."""
        return self.judging if place + 1 == len(self.planned.rows) else ()

    def _name(self, one: Tried, place: int) -> str:
        return f"try-{one.number}-on-{self.planned.rows[place]}-rows"

    def _chosen_by(self, outcome: Outcome) -> float:
        scores = outcome.scores[: len(self.choosing)]
        return sum(scores) / len(scores)

    def _worth(self, outcome: Outcome) -> float:
        """The score on the rows that choose; of equal ones, as short trainings often have, the lower loss is better."""
        return self._chosen_by(outcome) - _A_LOSS * min(outcome.loss, _WORST_LOSS)

    def _affords(self, place: int) -> bool:
        """Whether there is time for a training at this length, and then for the rule and one other at each longer."""
        later = sum(2 * self._needed(longer) for longer in range(place + 1, len(self.planned.rows)))
        return self.track.spent + self._needed(place) + later <= self.planned.seconds

    def _needed(self, place: int) -> float:
        """Seconds of a trial at a length: as predicted, or more where trials so far took more."""
        return self._predicted(place) * max(1.0, self.taken / self.predicted if self.predicted else 1.0)

    def _predicted(self, place: int) -> float:
        answering = len(self.choosing) + len(self._judging(place))
        return self.planned.rows[place] * self.pace.train_a_row + answering * self.pace.answer_a_row

    def conclude(self, tried: Sequence[Tried], share: float) -> dict[str, Any]:
        """What was won, whether it is used, and whether it was worth the time; `share` is what the longest training is
        of the whole one."""
        task, rule = self.track.task, tried[0]
        ended = [one for one in tried if self._reached_the_end(one)]
        if rule not in ended:
            return _nothing(self.track, f"the settings by rule could not be tried: {rule.why}")
        best = max(ended, key=lambda one: (self._chosen_by(one.outcomes[-1]), one is rule, -one.outcomes[-1].loss))
        took = f"{len(tried)} tries took {format_seconds(self.track.spent)}"
        known: dict[str, Any] = {"seconds": self.track.spent, "settings": {}, "won": None, "worth": "nothing-won"}
        if best is rule:
            return known | {"why": f"{took}; none was better than the settings by rule on {len(self.choosing)} rows"}
        count, decision = len(self.choosing), task.decision
        first, second = (np.array(one.outcomes[-1].scores[count:]) for one in (best, rule))
        pair = compare(first, second, 1 - decision.confidence, decision.minimum_effect, self.track.groups(self.judging))
        low, high = pair.interval
        points = f"{100 * pair.difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
        won = f"{took}; on {len(self.judging)} validation rows that chose nothing the best won {points} over the rule"
        known["won"] = {"difference": pair.difference, "interval": [low, high], "rows": len(self.judging)}
        best.status = "best"
        if pair.difference <= 0:
            return known | {"why": f"{won}, so the settings by rule are used"}
        if low <= 0 and share < _SHORT:
            short = f"in trainings {100 * share:.0f} % as long as the whole one"
            return known | {"worth": "not-shown", "why": f"{won} {short}, which may be chance: the rule is used"}
        best.status = "won"
        worth = "shown" if low > 0 else "not-shown"
        shown = "so it was worth the time" if low > 0 else "which may be chance, so its worth is not shown"
        return known | {"settings": dict(best.settings), "worth": worth, "why": f"{won}, {shown}"}


def _proposed(asked: optuna.Trial, bounds: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """What optuna proposes within `bounds`."""
    found: dict[str, Any] = {}
    for name, values in bounds.items():
        if name == "learning_rate":
            found[name] = float(f"{asked.suggest_float(name, values[0], values[-1], log=True):.2g}")
        else:
            found[name] = asked.suggest_categorical(name, values)
    return found


def _nothing(track: Track, why: str) -> dict[str, Any]:
    """What search.json says where nothing was tried."""
    return {"trials": [], "seconds": track.spent, "settings": {}, "won": None, "worth": "not-searched", "why": why}
