"""The arms are weighed: what they wrote becomes the verdict."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from tuneworth.decision import ArmResult, AtOnce, LearningCurve, Price, Probes, TokenPrice, decide
from tuneworth.decision.curve import fitted_curve
from tuneworth.evaluation.metrics import main_metric
from tuneworth.evaluation.metrics.choosing import JUDGE
from tuneworth.pipeline.judging import judge_document, judged_scores
from tuneworth.pipeline.ladder import arms_of
from tuneworth.pipeline.planning import machine_price
from tuneworth.pipeline.workshop import Workshop
from tuneworth.store.atomic import read_json, read_jsonl, write_json
from tuneworth.store.cache import sha256_of
from tuneworth.store.looks import digest, look
from tuneworth.store.run import RunFolder, read_arm

PROBES = ("robustness", "forgetting", "out_of_scope")
"""Files of an arm's folder that hold what the probes found; absent where not measured."""


def write_verdict(work: Workshop) -> None:
    """Weigh the arms; write verdict.json."""
    folder = work.folder
    price = machine_price(work)
    records = [read_arm(folder, name) for name in arms_of(work.task) if folder.arm_record(name).is_file()]
    judge = judge_document(folder)
    judged = judged_scores(folder, list(judge["arms"])) if judge is not None and judge["used"] else None
    metric = JUDGE if judged else main_metric(work.task, work.splits.kind)
    provenance = {
        "data": f"sha256:{work.splits.data_sha256}",
        **_data_set(work),
        "task": f"sha256:{sha256_of(folder.task)}",
        "code": version("tuneworth"),
        "machine": f"{work.machine}, {platform.system()}",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    wished = float(read_json(folder.plan)["settings"]["epochs"]["value"])
    results = [
        replace(
            _result(folder, record, price, judged.get(record["name"]) if judged else None),
            epochs=epochs_of(record, wished),
        )
        for record in records
    ]
    decision = work.task.decision
    verdict = decide(
        results,
        decision,
        metric=metric,
        price=price,
        provenance=provenance,
        learning_curve=None if judged else _learning_curve(folder, decision.minimum_effect),  # in the rows' own metric
        probes={record["name"]: _probes(folder, record) for record in records},
        looks_at_test=_look(work, results),
    )
    content = verdict.to_json()
    if judge is not None:
        content["why"] = [*content["why"], f"The judge ({judge['model']}): {judge['why']}."]
    write_json(folder.verdict, content)


def _data_set(work: Workshop) -> dict[str, str]:
    """The registered data set that the run learnt from, by its whole hash; nothing when it was a file."""
    known = work.splits.data_set
    return {"data_set": f"{known['name']}@{known['version']}"} if known else {}


def _result(
    folder: RunFolder, record: Mapping[str, Any], price: Price, judged: Mapping[str, float] | None
) -> ArmResult:
    """What the decision weighs of one arm; the cost to build is its machine time at the price of a machine hour. Where
    it is `judged`, the rows with a judgement count, and their scores are the judge's."""
    head = {name: record[name] for name in ("name", "family", "model", "decoding", "status")}
    if record["status"] != "done":
        return ArmResult(**head, why=record["why"])
    rows = read_jsonl(folder.arm(record["name"]) / "answers.jsonl")
    if judged is not None:
        rows = [row | {"score": judged[row["id"]]} for row in rows if row["id"] in judged]
    groups = [row["group"] for row in rows]
    is_model = record["family"] != "classical"
    return ArmResult(
        **head,
        scores=tuple(row["score"] for row in rows),
        groups=tuple(map(str, groups)) if all(groups) else None,
        input_tokens=record["input_tokens"] if is_model else None,
        output_tokens=record["output_tokens"] if is_model else None,
        seconds_p50=record["latency_seconds"].get("p50"),
        seconds_p95=record["latency_seconds"].get("p95"),
        machine_seconds_per_request=record["machine_seconds_per_request"],
        row_seconds=tuple(row["seconds"] for row in rows),
        usd_to_build=_usd_to_build(record, price),
        truncated=record["truncated"],
        empty=record["empty"],
        invalid=record["invalid"],
        **_optional(record, rows),
    )


def epochs_of(record: Mapping[str, Any], wished: float) -> tuple[float, float] | None:
    """How often a fine-tuned arm went through its rows, and how often it was `wished` that it would; None where the
    budget had no say in it: patience ended the training, or it went on at an endpoint of its own."""
    settings = record.get("settings") or {}
    if record["family"] != "fine-tune" or "epochs" not in settings or settings.get("ended") == "patience":
        return None
    return float(settings["epochs"]), wished


def _usd_to_build(record: Mapping[str, Any], price: Price) -> float | None:
    """Machine time, and what hosted models were paid for the answers that a choice needed; None where unknown."""
    paid = record.get("build_usd", 0.0)
    return None if paid is None else float(record["build_seconds"] / 3600 * price.usd_per_machine_hour + paid)


def _optional(record: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What not every arm.json has: prices of tokens, requests at once, trainings with several seeds."""
    price, seeds = record.get("token_price"), (record.get("settings") or {}).get("seeds") or ()
    return {
        "token_price": TokenPrice(**price) if price else None,
        "row_tokens": tuple((row["input_tokens"], row["output_tokens"]) for row in rows) if price else None,
        "at_once": tuple(AtOnce(**point) for point in record.get("at_once") or ()),
        "seed_spread": (record.get("settings") or {}).get("validation_spread"),
        "seeds": max(1, len(seeds)),
    }


def _probes(folder: RunFolder, record: Mapping[str, Any]) -> Probes:
    """What the probes wrote of an arm: `arms/<arm>/robustness.json`, `forgetting.json`, `out_of_scope.json`."""
    found = {}
    for name in PROBES:
        path = folder.arm(record["name"]) / f"{name}.json"
        value = read_json(path) if path.is_file() else record.get(name)
        found[name] = {key: part for key, part in value.items() if key != "schema"} if value else None
    return Probes.from_json(found)


def _learning_curve(folder: RunFolder, minimum_effect: float) -> LearningCurve | None:
    """A curve through what the probe of the learning curve wrote: {arm, points: [{rows, score, interval}]}."""
    if not folder.learning_curve.is_file():
        return None
    return fitted_curve(LearningCurve.from_json(read_json(folder.learning_curve)), minimum_effect)


def _look(work: Workshop, results: Sequence[ArmResult]) -> int:
    """The number of this look at the test rows: verdicts from other scores on the same rows came before."""
    rows = digest(sorted(digest((example.text, example.answer)) for example in work.splits.test))
    seen = digest(f"{arm.name} {arm.scores}" for arm in results if arm.done)
    return look(rows, seen)
