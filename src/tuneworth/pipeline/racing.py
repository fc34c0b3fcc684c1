"""The race among pre-trained models: trained a little on the same rows, judged on the same validation rows, the worse
half dropped, until one is left or time is. The test rows are out of reach here (LAW 7).

Every part is written when it is done (race/), so that a race that was stopped goes on where it was. The winner is
trained anew afterwards: its learning rate fell to zero at the end of each round, so its weights are no part of the
training to come.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from tuneworth.data.example import Example
from tuneworth.decision.statistics import compare
from tuneworth.errors import TuneworthError
from tuneworth.evaluation.arms import stratified
from tuneworth.evaluation.metrics import main_metric
from tuneworth.evaluation.watching import Watcher
from tuneworth.models.machine import this_machine
from tuneworth.pipeline.candidates import Candidate, find_candidates
from tuneworth.pipeline.settling import settings_of
from tuneworth.pipeline.trying import Outcome, Track, Trial, pace_of, try_out
from tuneworth.plan import Pace, Round, next_round, race_limit
from tuneworth.plan.budget import reserve_seconds
from tuneworth.store.atomic import read_json, write_json
from tuneworth.store.run import RunFolder
from tuneworth.task import Task, format_seconds

SCHEMA = "tuneworth.race/1"


def settled(task: Task, folder: RunFolder, watcher: Watcher, clock: float) -> Task:
    """`task` with one model: as named, or the winner of the race, which is run unless it is done. `clock` is when the
    run began. Raises MachineError when no candidate can be tried."""
    if not task.is_raced:
        return task
    if not folder.race.is_file():
        left = task.budget - (time.monotonic() - clock) - reserve_seconds(task.budget)
        write_json(folder.race, {"schema": SCHEMA, **_race(Track(task, folder, watcher, left, "race"))})
        shutil.rmtree(folder.path / "race", ignore_errors=True)
    winner = read_json(folder.race)["winner"]
    return task.model_copy(update={"models": [winner]})


def _race(track: Track) -> dict[str, Any]:
    """The content of race.json."""
    found = find_candidates(track.task, this_machine())
    paces = _paces(track, found.chosen) if len(found.chosen) > 1 else {}
    left = [candidate for candidate in found.chosen if candidate.id not in track.failed]
    if not left:  # each has its own reason; the first is told as an error
        raise TuneworthError("no model of the race could be measured", where="models", cure=str(track.failed))
    tried: dict[str, tuple[int, Outcome]] = {}  # in which round, and how
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
        tried |= {name: (len(rounds), outcome) for name, outcome in done.items()}
        ranked = sorted((c for c in left if c.id in done), key=lambda c: (-done[c.id].score, done[c.id].loss))
        if not ranked:
            raise TuneworthError("no model of the race could be trained", where="models", cure=str(track.failed))
        kept = ranked[: (len(ranked) + 1) // 2]
        against |= _behind(track, done, ranked[0], ranked[1:], planned)
        track.watcher.note(f"race, round {len(rounds)}: " + ", ".join(f"{c.id} {done[c.id].score:.3f}" for c in ranked))
        left = kept
        why = "the best score on validation rows, of equal ones the lower loss"
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


def _paces(track: Track, candidates: Sequence[Candidate]) -> dict[str, Pace]:
    """How fast each candidate is here; one that cannot be loaded or trained is left out with the reason."""
    track.watcher.begin("race: measuring the candidates", len(candidates))
    found = {}
    for candidate in candidates:
        path = track.home.path / f"pace-{candidate.number}.json"
        start = time.perf_counter()
        if not path.is_file() and (pace := track.guarded(candidate.id, partial(_pace, track, candidate))) is not None:
            took = time.perf_counter() - start
            write_json(path, {"schema": "tuneworth.pace/1", "pace": asdict(pace), "seconds": took})
        if path.is_file():
            kept = read_json(path)
            found[candidate.id] = Pace(**kept["pace"])
            track.spent += kept["seconds"]
        track.watcher.advance(1)
    return found


def _planned(track: Track, paces: Sequence[Pace], number: int) -> Round | None:
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


def _round(track: Track, left: Sequence[Candidate], planned: Round, number: int) -> dict[str, Outcome]:
    """Each candidate trained and judged."""
    done = {}
    share = planned.seconds / len(left)
    for candidate in left:
        path = track.home.path / f"{number}-{candidate.number}.json"
        if not path.is_file():
            found = track.guarded(candidate.id, partial(_tried, track, candidate, planned, number, share))
            if found is None:
                continue
            write_json(path, {"schema": "tuneworth.tried/1", "tried": asdict(found)})
        done[candidate.id] = Outcome.of_json(read_json(path)["tried"])
        track.spent += done[candidate.id].seconds
    return done


def _pace(track: Track, candidate: Candidate) -> Pace:
    return pace_of(track.at(candidate.id), track.left_seconds)


def _tried(track: Track, candidate: Candidate, planned: Round, number: int, share: float) -> Outcome:
    """Train a candidate on the round's rows once and judge it on the round's validation rows."""
    work = track.at(candidate.id)
    settings, kind = settings_of(work, bench := work.bench(0)), bench.kind
    rows = stratified(bench.train, planned.rows, track.task.seed, kind)
    steps = -(-len(rows) // min(int(settings.batch_size.value), len(rows)))
    name = f"{number}-{candidate.number}"
    found = try_out(track, work, Trial(name, settings, rows, steps, judging_rows(track, planned), (), share))
    return replace(found, rows=min(len(rows), found.rows))


def judging_rows(track: Track, planned: Round) -> tuple[Example, ...]:
    """The validation rows of a round."""
    return stratified(track.splits.validation, planned.judged, track.task.seed, track.splits.kind)


def _out_of_time(
    track: Track,
    left: Sequence[Candidate],
    tried: Mapping[str, tuple[int, Outcome]],
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
    track: Track, done: Mapping[str, Outcome], best: Candidate, others: Sequence[Candidate], planned: Round
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
    track: Track,
    candidate: Candidate,
    tried: tuple[int, Outcome] | None,
    behind: Mapping[str, Any] | None,
    winner: Candidate,
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
    number, outcome = tried
    return known | {
        "round": number,
        "rows": outcome.rows,
        "validation_rows": len(outcome.scores),
        "score": outcome.score,
        "interval": outcome.interval(track.task.decision.confidence),
        "seconds": outcome.seconds,
        "usd_per_1k_requests": 1000 * outcome.answer_a_row * track.usd_per_hour / 3600,
    }
