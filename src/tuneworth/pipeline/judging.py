"""The judge's stage: every arm's answers beside the wanted ones, and whether people agree with who judges.

The judge is held against human preferences first, where rows have any (an answer and a rejected one), never those of
test. Only a judge whose agreement lies above chance with its whole interval may make the verdict.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tuneworth.data import Example
from tuneworth.decision.statistics import mean_interval
from tuneworth.errors import InputError
from tuneworth.evaluation.arms import Bench, stratified
from tuneworth.evaluation.judging import (
    Judgement,
    Pair,
    agreement,
    beside_wanted,
    compare_answers,
    human_pairs,
    seconds_a_pair,
    trusted,
)
from tuneworth.evaluation.metrics.choosing import JUDGE
from tuneworth.evaluation.records import RawAnswer
from tuneworth.models.sources import check_model_id
from tuneworth.pipeline.ladder import arms_of
from tuneworth.pipeline.preparing import Prepared
from tuneworth.pipeline.workshop import Workshop
from tuneworth.plan.judging import JudgePlan, afford_judge
from tuneworth.store.atomic import read_json, read_jsonl, write_json, write_jsonl
from tuneworth.store.run import RunFolder, read_arm, write_arm
from tuneworth.task import Task

_KINDS = ("generation", "chat")
_TIMED = 4
_CHANCE = 0.5
_LEAST_JUDGED = 0.9  # of the rows, without which a verdict is not made from them
_VALUES = {1: 1.0, 0: 0.5, 2: 0.0}
"""What an answer is worth that is better than the wanted one, as good, and worse."""


def check_judge(task: Task, splits: Prepared) -> None:
    """Raises InputError when the task's judge does not suit its rows, or cannot make the verdict as it should."""
    if task.judge is None:
        if task.metric == JUDGE:
            cure = "name a provider or a local model in `judge`"
            raise InputError("the metric 'judge' needs a judge", where="metric", cure=cure)
        return
    if splits.kind not in _KINDS:
        cure = "leave `judge` out; this kind is measured exactly"
        raise InputError(f"a judge compares texts, not answers of kind {splits.kind}", where="judge", cure=cure)
    if task.judge not in task.providers:
        try:
            check_model_id(task.judge)
        except InputError as error:
            cure = f"name one of providers ({', '.join(task.providers) or 'there are none'}), or a model"
            raise InputError(
                f"'{task.judge}' is no provider, and {error.problems[0].what}", where="judge", cure=cure
            ) from None
    if task.metric == JUDGE and not human_pairs(_known(splits), task.seed):
        raise InputError(
            "a verdict is made only from a judge that is known to agree with people, and no row has a preference",
            where="metric",
            cure="give rows a rejected answer beside the wanted one (data.columns.rejected), or leave metric at auto",
        )


def plan_judging(work: Workshop, bench: Bench) -> JudgePlan:
    """What the judge may be asked, timed on a few validation rows. Raises as its endpoint does."""
    known = [beside_wanted(row, bench.train[n % len(bench.train)].answer) for n, row in enumerate(bench.validation)]
    a_pair = seconds_a_pair(work.judge, known[:_TIMED])
    pairs = len(human_pairs(_known(work.splits), work.task.seed))
    return afford_judge(a_pair, len(arms_of(work.task)), pairs, len(bench.test), work.task.budget)


def judge_arms(work: Workshop, bench: Bench, plan: Mapping[str, Any], seconds_left: float) -> None:
    """Judge what every finished arm answered; write judged.jsonl of each, arm.json, and at last judge.json.

    What is done is not done again. An arm's own judging is part of what it costs to build.
    """
    why = plan["judge"]["why"]
    if why is None and seconds_left < plan["judge"]["seconds"] / 2:
        why = "earlier stages took longer than planned; run it with a longer budget"
    if why is not None:
        _leave_out(work, why)
        return
    work.watcher.begin("judge: beside people", 2 * plan["judge"]["pairs"])
    start = time.perf_counter()
    pairs = human_pairs(_known(work.splits), work.task.seed)[: plan["judge"]["pairs"]]
    found = compare_answers(work.judge, pairs, work.watcher.advance) if pairs else []
    beside, about = _agreement(pairs, found, work.task.decision.confidence), {}
    seconds = time.perf_counter() - start
    rows = stratified(bench.test, plan["judge"]["rows"], work.task.seed, bench.kind)
    for name in arms_of(work.task):
        if work.folder.arm_record(name).is_file() and read_arm(work.folder, name)["status"] == "done":
            about[name] = _judge_arm(work, name, rows)
    trust = beside is not None and trusted(beside["interval"][0], _CHANCE)
    used, note = _use(work, beside, trust, list(about))
    content = {"model": work.judge.name, "rows": len(rows), "agreement": beside, "trusted": trust, "used": used}
    cost = {"seconds": seconds, "usd": _usd(work, found)}  # of the preferences; the arms bear their own
    write_json(work.folder.judge, {"schema": "tuneworth.judge/1", **content, "why": note, **cost, "arms": about})
    work.watcher.note(f"judge: {note}")


def judged_scores(folder: RunFolder, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each arm the scores by row, on the rows of which all arms have one."""
    lines = {name: read_jsonl(folder.arm(name) / "judged.jsonl") for name in names}
    known = {
        name: {row["id"]: row["score"] for row in rows if row["score"] is not None} for name, rows in lines.items()
    }
    if not known:
        return {}
    common = set.intersection(*(set(scores) for scores in known.values()))
    return {name: {key: score for key, score in scores.items() if key in common} for name, scores in known.items()}


def _judge_arm(work: Workshop, name: str, rows: Sequence[Example]) -> dict[str, Any]:
    """What the judge says of one arm, into judged.jsonl and arm.json."""
    record = read_arm(work.folder, name)
    if record.get("judge"):
        return dict(record["judge"])
    answers = {row["id"]: row for row in read_jsonl(work.folder.arm(name) / "answers.jsonl")}
    # What an arm did not answer is worth nothing, whoever judges; it is not shown.
    shown = [row for row in rows if not answers[row.id]["error"] and answers[row.id]["raw"].strip()]
    work.watcher.begin(f"judge: {name}", 2 * len(shown))
    start = time.perf_counter()
    pairs = [beside_wanted(row, answers[row.id]["raw"]) for row in shown]
    found = {one.id: one for one in compare_answers(work.judge, pairs, work.watcher.advance)} if pairs else {}
    seconds = time.perf_counter() - start
    lines = [_line(row.id, found.get(row.id)) for row in rows]
    write_jsonl(work.folder.arm(name) / "judged.jsonl", lines)
    scores = [line["score"] for line in lines if line["score"] is not None]
    usd = _usd(work, list(found.values()))
    about = {
        "model": work.judge.name,
        "rows": len(lines),
        "score": sum(scores) / len(scores) if scores else None,
        "no_verdict": len(lines) - len(scores),
        "why_no_verdict": dict(Counter(line["why"] for line in lines if line["score"] is None).most_common(5)),
        "same_in_both_orders": sum(one.consistent for one in found.values()) / len(found) if found else None,
        "seconds": seconds,
        "usd": usd,
    }
    built = {"build_seconds": record["build_seconds"] + (0.0 if work.task.judge in work.task.providers else seconds)}
    paid = record.get("build_usd", 0.0)
    built |= {"build_usd": None if paid is None else paid + (usd or 0.0)}
    write_arm(work.folder, {**record, **built, "judge": about})
    return about


def _line(name: str, found: Judgement | None) -> dict[str, Any]:
    if found is None:
        return {"id": name, "score": 0.0, "consistent": None, "why": "the arm gave no answer"}
    score = None if found.winner is None else _VALUES[found.winner]
    return {"id": name, "score": score, "consistent": found.consistent, "why": found.why}


def _known(splits: Prepared) -> tuple[Example, ...]:
    """The rows whose preferences the judge may be held against: those of test are for arms alone."""
    return (*splits.validation, *splits.train)


def _agreement(pairs: Sequence[Pair], found: Sequence[Judgement], confidence: float) -> dict[str, Any] | None:
    """How often the judge agrees with people; None where people said nothing."""
    if not pairs:
        return None
    beside = agreement(pairs, found)
    groups = np.unique(np.array(beside.groups), return_inverse=True)[1]
    alone = len(set(beside.groups)) == len(beside.groups)
    interval = mean_interval(np.array(beside.agrees, dtype=np.float64), True, confidence, None if alone else groups)
    return {
        "pairs": len(pairs),
        "share": beside.share,
        "interval": interval,
        "no_verdict": beside.unusable,
        "same_in_both_orders": beside.consistent / len(pairs),
    }


def _use(work: Workshop, beside: Mapping[str, Any] | None, trust: bool, names: Sequence[str]) -> tuple[bool, str]:
    """Whether the verdict is made from the judge, and why."""
    if beside is None:
        return False, "no row has a human preference, so whether it agrees with people is not known; it decides nothing"
    low, high = beside["interval"]
    said = f"it agrees with people on {beside['share']:.0%} of {beside['pairs']} pairs ({low:.0%} to {high:.0%})"
    if not trust:
        return False, f"{said}, which may be chance; it decides nothing"
    if work.task.metric != JUDGE:
        return False, f"{said}; the verdict is made from {work.metric.name}"
    scores = judged_scores(work.folder, names)
    rows = max((read_arm(work.folder, name)["judge"]["rows"] for name in names), default=0)
    common = len(next(iter(scores.values()), {}))
    if not common or common < _LEAST_JUDGED * rows:
        return False, f"{said}, but only {common} of {rows} rows have a verdict for every arm; it decides nothing"
    return True, f"{said}; the verdict is made from {common} of {rows} judged rows"


def _usd(work: Workshop, found: Sequence[Judgement]) -> float | None:
    """What the replies cost; None where the price is not known."""
    replies: list[RawAnswer] = [reply for one in found for reply in one.replies]
    return work.judge.usd(replies) if replies else 0.0


def _leave_out(work: Workshop, why: str) -> None:
    content = {"model": work.task.judge, "rows": 0, "agreement": None, "trusted": False, "used": False}
    note = f"nothing was judged: {why}"
    cost = {"seconds": 0.0, "usd": 0.0}
    write_json(work.folder.judge, {"schema": "tuneworth.judge/1", **content, "why": note, **cost, "arms": {}})
    work.watcher.note(f"judge: {note}")


def judge_document(folder: RunFolder) -> dict[str, Any] | None:
    """judge.json, where a judge was asked for."""
    return read_json(folder.judge) if folder.judge.is_file() else None
