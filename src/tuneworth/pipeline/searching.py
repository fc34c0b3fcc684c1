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

from tuneworth.decision.statistics import compare
from tuneworth.errors import InputError
from tuneworth.evaluation.arms import Bench, stratified
from tuneworth.evaluation.metrics import main_metric
from tuneworth.evaluation.watching import Watcher
from tuneworth.pipeline.settling import SEARCHED, settings_of
from tuneworth.pipeline.trying import Outcome, Track, Trial, first_taught, pace_of, try_out
from tuneworth.pipeline.workshop import Workshop
from tuneworth.plan import FACTOR, SEARCH_SHARE, Pace, SearchPlan, TrainingPlan, plan_search
from tuneworth.plan.budget import reserve_seconds
from tuneworth.store.atomic import read_json, write_json
from tuneworth.store.run import RunFolder
from tuneworth.task import Task, format_seconds

SCHEMA = "tuneworth.search/1"
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
    if all(getattr(task.training, name) is not None for name in SEARCHED):
        raise InputError(
            f"a search tries {', '.join(SEARCHED)}, and you fixed all of them",
            where="training.search",
            cure="leave one of them open, or leave the search out",
        )


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
    bounds = _bounds(track.task, rule, has_start=work.start is not None)
    trials = _Search(track, work, planned, pace)
    tried = trials.run(_rule_values(track.task, rule, bounds), bounds)
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


def _bounds(task: Task, rule: TrainingPlan, *, has_start: bool) -> dict[str, list[Any]]:
    """What is tried of each setting: the least and the largest learning rate, and all values of the others. What the
    user fixed is not searched, nor is the rank of a training that goes on from another, nor one where there is none."""
    all_weights = first_taught(task).all_weights
    rate = float((rule.full_learning_rate if all_weights else rule.learning_rate).value)
    batch, rank = int(rule.batch_size.value), int(rule.rank.value)
    found: dict[str, list[Any]] = {}
    if task.training.learning_rate is None:
        found["learning_rate"] = [rate / _RATES, min(1.0, rate * _RATES)]
    if task.training.batch_size is None:
        found["batch_size"] = sorted({max(1, min(256, int(batch * times))) for times in _BATCHES})
    if task.training.rank is None and not all_weights and not has_start:
        found["rank"] = sorted({max(1, min(512, int(rank * times))) for times in _RANKS})
    return found


def _rule_values(task: Task, rule: TrainingPlan, bounds: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: getattr(rule, name).value for name in bounds}
    if "learning_rate" in values and first_taught(task).all_weights:
        values["learning_rate"] = rule.full_learning_rate.value
    return values


class _Search:
    """The trials of a search, one after the other."""

    def __init__(self, track: Track, work: Workshop, planned: SearchPlan, pace: Pace) -> None:
        self.track, self.work, self.planned, self.pace = track, work, planned, pace
        self.bench = work.bench(0)
        count = planned.choosing + planned.judging
        rows = stratified(track.splits.validation, count, track.task.seed, track.splits.kind)
        self.choosing, self.judging = rows[::2], rows[1::2]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=track.task.seed, n_startup_trials=_RANDOM_TRIALS),
        )

    def run(self, rule: Mapping[str, Any], bounds: Mapping[str, Sequence[Any]]) -> list[Tried]:
        """The trials that were begun; the first has the settings by rule, and is trained at every length."""
        self.study.enqueue_trial(dict(rule))
        tried: list[Tried] = []
        self.track.watcher.begin("search: trying settings", self.planned.trials)
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

    def reached_the_end(self, one: Tried) -> bool:
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
        return outcome

    def _trained(self, one: Tried, place: int) -> Outcome:
        rows, kind = self.planned.rows[place], self.bench.kind
        settings = settings_of(self.work, self.bench, one.settings)
        learnt = stratified(self.bench.train, min(rows, len(self.bench.train)), self.track.task.seed, kind)
        steps = max(1, rows // int(settings.batch_size.value))
        is_last = place + 1 == len(self.planned.rows)
        judged = (*self.choosing, *self.judging) if is_last else self.choosing
        trial = Trial(self._name(one, place), settings, learnt, steps, self._seconds(rows))
        return try_out(self.track, self.work, trial, judged)

    def _name(self, one: Tried, place: int) -> str:
        return f"try-{one.number}-on-{self.planned.rows[place]}-rows"

    def _chosen_by(self, outcome: Outcome) -> float:
        scores = outcome.scores[: len(self.choosing)]
        return sum(scores) / len(scores)

    def _worth(self, outcome: Outcome) -> float:
        """The score on the rows that choose; of equal ones, as short trainings often have, the lower loss is better."""
        return self._chosen_by(outcome) - _A_LOSS * min(outcome.loss, _WORST_LOSS)

    def _seconds(self, rows: int) -> float:
        return rows * self.pace.train_a_row

    def _affords(self, place: int) -> bool:
        """Whether there is time for a training at this length, and then for the rule and one other at each longer."""
        later = sum(2 * self._needed(longer) for longer in range(place + 1, len(self.planned.rows)))
        return self.track.spent + self._needed(place) + later <= self.planned.seconds

    def _needed(self, place: int) -> float:
        answering = len(self.choosing) + (len(self.judging) if place + 1 == len(self.planned.rows) else 0)
        return self._seconds(self.planned.rows[place]) + answering * self.pace.answer_a_row

    def conclude(self, tried: Sequence[Tried], share: float) -> dict[str, Any]:
        """What was won, whether it is used, and whether it was worth the time; `share` is what the longest training is
        of the whole one."""
        task, rule = self.track.task, tried[0]
        ended = [one for one in tried if self.reached_the_end(one)]
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
