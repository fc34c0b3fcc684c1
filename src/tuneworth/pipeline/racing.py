"""The race among pre-trained models: trained a little on the same rows, judged on the same validation rows, the worse
half dropped, until one is left or time is. The test rows are out of reach here (LAW 7).

Every part is written when it is done (race/), so that a race that was stopped goes on where it was. The winner is
trained anew afterwards: its learning rate fell to zero at the end of each round, so its weights are no part of the
training to come.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tuneworth.data.example import Example
from tuneworth.decision import machine_hour_price
from tuneworth.decision.statistics import Codes, compare, mean_interval
from tuneworth.errors import Interrupted, TuneworthError
from tuneworth.evaluation.arms import Bench, answered, stratified
from tuneworth.evaluation.metrics import main_metric
from tuneworth.evaluation.tuned import Job, training_alone
from tuneworth.evaluation.watching import Watcher
from tuneworth.models.machine import this_machine
from tuneworth.pipeline.candidates import Candidate, find_candidates
from tuneworth.pipeline.ladder import Taught, arms_of
from tuneworth.pipeline.measuring import recipe_of, training_rates
from tuneworth.pipeline.planning import memory_of
from tuneworth.pipeline.preparing import Prepared, read_splits
from tuneworth.pipeline.settling import loop_settings, settings_of
from tuneworth.pipeline.trainable import trainable
from tuneworth.pipeline.workshop import Workshop
from tuneworth.plan import Course, Pace, Round, Rows, TrainingPlan, next_round, race_limit
from tuneworth.plan.budget import reserve_seconds
from tuneworth.store.atomic import read_json, write_json
from tuneworth.store.run import RunFolder
from tuneworth.task import Task, format_seconds

SCHEMA = "tuneworth.race/1"
_LOOK_ROWS = 8  # of the loop's own evaluation; a round is judged afterwards, on more
_TRAINED_SHARE = 0.6  # of what is left of the budget that one training may take at most
_LATE = 2.0  # times the predicted seconds, after which a training of the race ends


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate after a round: rows learnt, the scores of the round's validation rows in order, and wall seconds of
    all (training, loading, answering) and of answering a row."""

    round: int
    rows: int
    scores: tuple[float, ...]
    seconds: float
    answer_a_row: float

    @property
    def score(self) -> float:
        """The mean."""
        return sum(self.scores) / len(self.scores)


class _Track:
    """Where the race is run: rows without test rows, and a folder for its parts."""

    def __init__(self, task: Task, folder: RunFolder, watcher: Watcher, left_seconds: float) -> None:
        self.task, self.folder, self.watcher, self.left_seconds = task, folder, watcher, left_seconds
        self.home = RunFolder(folder.path / "race")
        self.splits: Prepared = replace(trainable(read_splits(folder), task), test=())
        self.failed: dict[str, str] = {}
        self.spent = 0.0
        machine = this_machine()
        price = machine_hour_price(task.decision.usd_per_machine_hour, machine.cores, len(machine.gpus))
        self.usd_per_hour = price.usd_per_machine_hour

    def at(self, candidate: Candidate) -> Workshop:
        """The workshop with a candidate as its model."""
        gc.collect()  # the model before it
        return Workshop(self.task.model_copy(update={"models": [candidate.id]}), self.folder, self.splits, self.watcher)

    def groups(self, examples: Sequence[Example]) -> Codes | None:
        """The groups of rows as numbers, if rows have groups."""
        names = [example.group for example in examples]
        return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64) if all(names) else None


def settled(task: Task, folder: RunFolder, watcher: Watcher, clock: float) -> Task:
    """`task` with one model: as named, or the winner of the race, which is run unless it is done. `clock` is when the
    run began. Raises MachineError when no candidate can be tried."""
    if not task.is_raced:
        return task
    if not folder.race.is_file():
        left = task.budget - (time.monotonic() - clock) - reserve_seconds(task.budget)
        write_json(folder.race, {"schema": SCHEMA, **_race(_Track(task, folder, watcher, left))})
        shutil.rmtree(folder.path / "race", ignore_errors=True)
    winner = read_json(folder.race)["winner"]
    return task.model_copy(update={"models": [winner]})


def _race(track: _Track) -> dict[str, Any]:
    """The content of race.json."""
    found = find_candidates(track.task, this_machine())
    paces = _paces(track, found.chosen) if len(found.chosen) > 1 else {}
    left = [candidate for candidate in found.chosen if candidate.id not in track.failed]
    if not left:  # each has its own reason; the first is told as an error
        raise TuneworthError("no model of the race could be measured", where="models", cure=str(track.failed))
    tried: dict[str, Tried] = {}
    against: dict[str, dict[str, Any]] = {}
    rounds: list[Round] = []
    why = "it is the only candidate"
    while len(left) > 1:
        planned = _planned(track, [paces[candidate.id] for candidate in left], len(rounds) + 1)
        if planned is None:
            left, why = _out_of_time(track, left, tried, paces, rounds)
            break
        rounds.append(planned)
        done = _round(track, left, planned, len(rounds))
        tried |= done
        ranked = sorted((c for c in left if c.id in done), key=lambda c: (-done[c.id].score, done[c.id].answer_a_row))
        if not ranked:
            raise TuneworthError("no model of the race could be trained", where="models", cure=str(track.failed))
        kept = ranked[: (len(ranked) + 1) // 2]
        against |= _behind(track, done, ranked[0], ranked[1:], planned)
        track.watcher.note(f"race, round {len(rounds)}: " + ", ".join(f"{c.id} {done[c.id].score:.3f}" for c in ranked))
        left = kept
        why = "the best score on validation rows, the cheaper one among equals"
    winner = left[0]
    return {
        "winner": winner.id,
        "why": why,
        "metric": main_metric(track.task, track.splits.kind),
        "rounds": [asdict(planned) for planned in rounds],
        "seconds": track.spent,
        "training_seconds": paces[winner.id].training if winner.id in paces else None,
        "candidates": [
            _entry(track, candidate, tried.get(candidate.id), against.get(candidate.id), winner)
            for candidate in found.chosen
        ],
        "left_out": [{"model": model, "why": why} for model, why in found.left_out],
    }


def _paces(track: _Track, candidates: Sequence[Candidate]) -> dict[str, Pace]:
    """How fast each candidate is here; one that cannot be loaded or trained is left out with the reason."""
    track.watcher.begin("race: measuring the candidates", len(candidates))
    found = {}
    for candidate in candidates:
        path = track.home.path / f"pace-{candidate.number}.json"
        start = time.perf_counter()
        if not path.is_file() and (pace := _guarded(track, candidate, partial(_pace, track, candidate))) is not None:
            took = time.perf_counter() - start
            write_json(path, {"schema": "tuneworth.pace/1", "pace": asdict(pace), "seconds": took})
        if path.is_file():
            kept = read_json(path)
            found[candidate.id] = Pace(**kept["pace"])
            track.spent += kept["seconds"]
        track.watcher.advance(1)
    return found


def _guarded(track: _Track, candidate: Candidate, work: Callable[[], Any]) -> Any:
    """What `work` finds; None when the candidate cannot do it, with the reason kept."""
    try:
        return work()
    except Interrupted:
        raise
    except TuneworthError as error:
        track.failed[candidate.id] = str(error)
        track.watcher.note(f"race: {candidate.id} is out: {error}")
        return None


def _pace(track: _Track, candidate: Candidate) -> Pace:
    start = time.perf_counter()
    work = track.at(candidate)
    bench = work.bench(0)
    load = time.perf_counter() - start
    settings = settings_of(work, bench)
    answer, train = training_rates(
        work, bench, settings, _taught(track.task), memory_of(work, bench, settings).micro_batch_tokens
    )
    epochs, seeds = float(settings.epochs.value), track.task.training.seeds
    course = Course(epochs, int(settings.batch_size.value), seeds, answer, train)
    whole = epochs * len(bench.train) * train * seeds
    whole += course.looking(Rows(len(bench.train), len(bench.validation), 0))
    return Pace(load, train, answer.a_row, min(whole, _TRAINED_SHARE * max(0.0, track.left_seconds)))


def _planned(track: _Track, paces: Sequence[Pace], number: int) -> Round | None:
    """The round, as it was planned before the race was stopped, if it was."""
    path = track.home.path / f"round-{number}.json"
    if path.is_file():
        return Round(**read_json(path)["round"])
    batch = min(16, len(track.splits.train))
    found = next_round(
        paces, track.spent, track.task.budget, len(track.splits.train), len(track.splits.validation), batch
    )
    if found is not None:
        write_json(path, {"schema": "tuneworth.round/1", "round": asdict(found)})
    return found


def _round(track: _Track, left: Sequence[Candidate], planned: Round, number: int) -> dict[str, Tried]:
    """Each candidate trained and judged."""
    done = {}
    share = planned.seconds / len(left)
    for candidate in left:
        path = track.home.path / f"{number}-{candidate.number}.json"
        if not path.is_file():
            found = _guarded(track, candidate, partial(_tried, track, candidate, planned, number, share))
            if found is None:
                continue
            write_json(path, {"schema": "tuneworth.tried/1", "tried": asdict(found)})
        kept = read_json(path)["tried"]
        done[candidate.id] = Tried(**{**kept, "scores": tuple(kept["scores"])})
        track.spent += done[candidate.id].seconds
    return done


def _tried(track: _Track, candidate: Candidate, planned: Round, number: int, share: float) -> Tried:
    """Train a candidate on the round's rows once and judge it on the round's validation rows."""
    start = time.perf_counter()
    work = track.at(candidate)
    whole = work.bench(0)
    taught = _taught(track.task)
    rows = stratified(whole.train, planned.rows, track.task.seed, whole.kind)
    bench = replace(whole, train=rows, validation=whole.validation[:_LOOK_ROWS], folder=track.home)
    name = f"{number}-{candidate.number}"
    job = _job(work, whole, taught, len(rows), _LATE * share)
    attempt, weights = training_alone(bench, name, work.local, job)
    judged = judging_rows(track, planned)
    track.watcher.begin(f"race: {candidate.id} answers validation", len(judged))
    with work.local.tuned(weights):
        before = time.perf_counter()
        answers = answered(whole, work.local, job.form, judged)
        a_row = (time.perf_counter() - before) / len(judged)
    shutil.rmtree(bench.folder.arm(name), ignore_errors=True)
    learnt = min(len(rows), attempt.steps * job.settings.batch_size)
    scores = tuple(answer.score for answer in answers)
    return Tried(number, learnt, scores, time.perf_counter() - start, a_row)


def judging_rows(track: _Track, planned: Round) -> tuple[Example, ...]:
    """The validation rows of a round."""
    return stratified(track.splits.validation, planned.judged, track.task.seed, track.splits.kind)


def _job(work: Workshop, bench: Bench, taught: Taught, rows: int, seconds: float) -> Job:
    """One pass over `rows` rows by the settings of the whole training, with a learning rate that falls to zero."""
    settings: TrainingPlan = settings_of(work, bench)
    memory = memory_of(work, bench, settings)
    batch_size = min(int(settings.batch_size.value), rows)
    steps = -(-rows // batch_size)
    whole = loop_settings(work, settings.to_json(), steps, all_weights=taught.all_weights)
    return Job(
        form=taught.form_of(bench),
        settings=replace(
            whole,
            batch_size=batch_size,
            evaluate_every=steps,
            maximum_tokens=memory.micro_batch_tokens,
            maximum_seconds=seconds,
        ),
        recipe=recipe_of(settings.to_json(), taught.all_weights, work.task.seed),
        recompute=memory.recompute,
    )


def _taught(task: Task) -> Taught:
    """How the first trained arm of the task is trained."""
    return next(arm.taught for arm in arms_of(task).values() if arm.taught)


def _out_of_time(
    track: _Track,
    left: Sequence[Candidate],
    tried: Mapping[str, Tried],
    paces: Mapping[str, Pace],
    rounds: Sequence[Round],
) -> tuple[list[Candidate], str]:
    """The candidate that is taken when there is no time for a round, and why."""
    limit = format_seconds(race_limit([paces[c.id] for c in left], track.task.budget))
    if rounds:
        return [left[0]], f"ahead after round {len(rounds)}; {limit} of racing leave no time for another"
    first = next((c for c in left if c.id == track.task.model), left[0])
    return [first], f"not raced: {limit} of racing are too few for {len(left)} models; give a longer budget"


def _behind(
    track: _Track, done: Mapping[str, Tried], best: Candidate, others: Sequence[Candidate], planned: Round
) -> dict[str, dict[str, Any]]:
    """How far each is behind the best of its round, paired on the same validation rows."""
    decision, groups = track.task.decision, track.groups(judging_rows(track, planned))
    first = np.array(done[best.id].scores)
    found = {}
    for other in others:
        pair = compare(first, np.array(done[other.id].scores), 1 - decision.confidence, decision.minimum_effect, groups)
        found[other.id] = {"model": best.id, "difference": pair.difference, "interval": list(pair.interval)}
    return found


def _entry(
    track: _Track, candidate: Candidate, tried: Tried | None, behind: Mapping[str, Any] | None, winner: Candidate
) -> dict[str, Any]:
    """A row of the race's table; what was not measured is None."""
    known: dict[str, Any] = {
        "model": candidate.id,
        "parameters": candidate.parameters,
        "licence": candidate.licence,
        "status": "won" if candidate is winner else "failed" if candidate.id in track.failed else "dropped",
        "why": track.failed.get(candidate.id),
        "behind": None if candidate is winner else behind,
    }
    measured = ("round", "rows", "validation_rows", "score", "interval", "seconds", "usd_per_1k_requests")
    if tried is None:
        return known | dict.fromkeys(measured)
    values = np.array(tried.scores)
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    return known | {
        "round": tried.round,
        "rows": tried.rows,
        "validation_rows": len(values),
        "score": tried.score,
        "interval": list(mean_interval(values, binary, track.task.decision.confidence)),
        "seconds": tried.seconds,
        "usd_per_1k_requests": 1000 * tried.answer_a_row * track.usd_per_hour / 3600,
    }
