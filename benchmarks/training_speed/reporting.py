"""What was measured becomes one JSON document, and a table for people. Measures nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from training_speed.limit import share
from training_speed.measuring import Kept

TOLERANCE = 0.02
"""How far our loss may be above the worst of the peers', in nats a token."""

_LAST_STEPS = 4


def report(kept: Kept, engines: Sequence[str], workloads: Sequence[str], steps: Mapping[str, int]) -> dict[str, Any]:
    """The document described in benchmarks/training.py; what was not measured is null or absent.

    `steps` are the steps of a workload's measured run of ours; peers' runs are found under the same number or, where
    their steps are a share, under their own.
    """
    limit = kept.peek("limit")
    finals = {
        workload: {engine: kept.peek(final_name(workload, engine, steps)) for engine in engines}
        for workload in workloads
    }
    found: dict[str, Any] = {
        workload: _workload(runs, kept.peek(f"rows/{workload}"), limit) for workload, runs in finals.items()
    }
    judged = kept.peek(judged_name(engines, steps)) or {}
    found["final_loss"] = {name: judged[name] for name in engines if name in judged}
    found["training_loss"] = {
        workload: {name: _last(run) for name, run in runs.items() if run and "losses" in run}
        for workload, runs in finals.items()
    }
    found["settings"] = {
        workload: {name: run.get("settings") for name, run in runs.items() if run and name != "ours"}
        for workload, runs in finals.items()
    }
    peers = [name for name in engines if name != "ours"]
    found["trials"] = {
        workload: {name: _trials(kept, trial_name(workload, name, steps)) for name in peers} for workload in workloads
    }
    found["limit"] = limit
    found["startup_seconds"] = kept.peek("startup")
    found["runs"] = finals
    found["rows"] = {workload: kept.peek(f"rows/{workload}") for workload in workloads}
    found["about"] = kept.peek("about")
    found["problems"] = problems(found)
    return found


def final_name(workload: str, engine: str, steps: Mapping[str, int]) -> str:
    """Where the measured run of an engine is kept."""
    return f"final/{workload}/{engine}/{steps[workload if engine == 'ours' else f'{workload}.peers']} steps"


def trial_name(workload: str, engine: str, steps: Mapping[str, int]) -> str:
    """Where the trials of a peer are kept, each under its settings as JSON after this name."""
    return f"trial/{workload}/{engine}/{steps[f'{workload}.peers']} steps/"


def judged_name(engines: Sequence[str], steps: Mapping[str, int]) -> str:
    """Where the evaluation losses of these engines are kept."""
    return f"judged/{','.join(sorted(engines))}/{steps['short']} steps"


def problems(found: Mapping[str, Any]) -> list[str]:
    """What must not be: our loss above the peers', batches that are not the job's, disturbed or failed runs of ours."""
    wrong = []
    losses = dict(found["final_loss"])
    ours = losses.pop("ours", None)
    if ours is not None and losses and not ours <= max(losses.values()) + TOLERANCE:
        wrong.append(f"our final loss {ours:.4f} is above the peers' ({_numbers(losses)}) by more than {TOLERANCE}")
    for workload, runs in found["runs"].items():
        run = runs.get("ours") or {}
        if "error" in run:
            wrong.append(f"{workload}: our run failed: {run['error']}")
        elif run and not run["same_batches"]:
            wrong.append(f"{workload}: our batches are not those that the peers trained")
        wrong += [
            f"{workload}: other processes used {run['cores_used_by_others']:.1f} cores while {name} was measured"
            for name, run in runs.items()
            if run and run.get("disturbed")
        ]
    return wrong


def _workload(runs: Mapping[str, Any], rows: Any, limit: Any) -> dict[str, Any]:
    rates = {name: run["rows_per_second"] for name, run in runs.items() if run and "error" not in run}
    ours = rates.pop("ours", None)
    found: dict[str, Any] = {
        "ours": ours,
        "peers": rates,
        "ratio": {name: ours / rate for name, rate in rates.items()} if ours else {},
        "share_of_limit": None,
        "share_of_limit_computed": None,
        "peak_bytes": {name: run["peak_bytes"] for name, run in runs.items() if run and "error" not in run},
        "failed": {name: run["error"] for name, run in runs.items() if run and "error" in run},
    }
    if ours and limit and rows:
        run, flops, most = runs["ours"], limit["flops_per_token"], limit["flops_per_second"]
        found["share_of_limit"] = share(ours, rows["tokens_a_row"], flops, most)
        computed = run["computed_tokens"] / run["timed_rows"]
        found["share_of_limit_computed"] = share(ours, computed, flops, most)
    return found


def _last(run: Mapping[str, Any]) -> float:
    """Mean training loss of the last steps."""
    last = run["losses"][-_LAST_STEPS:]
    return math.fsum(last) / len(last)


def _trials(kept: Kept, start: str) -> list[dict[str, Any]]:
    return [
        {
            "settings": json.loads(key.removeprefix(start)),
            **{field: trial[field] for field in ("rows_per_second", "error") if field in trial},
            "first_loss": trial["losses"][0] if "losses" in trial else None,
        }
        for key, trial in kept.items(start)
    ]


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def table(found: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = []
    for workload, runs in found["runs"].items():
        part, rows = found[workload], found["rows"][workload]
        if rows is None:
            continue
        lines += [f"{workload}: {rows['tokens_a_row']:.0f} tokens a row, {rows['source']} rows", ""]
        lines.append(f"  {'engine':<14}{'rows/s':>8}{'ours is':>9}{'peak GB':>9}{'final loss':>12}  settings")
        for name, run in runs.items():
            if run is None:
                continue
            if "error" in run:
                lines.append(f"  {name:<14}  {run['error']}")
                continue
            ratio = f"{part['ratio'][name]:.1f} x" if name in part["ratio"] else ""
            loss = found["final_loss"].get(name) if workload == "short" else None
            settings = ", ".join(f"{k}={v}" for k, v in (run.get("settings") or {}).items() if k != "trainer")
            lines.append(
                f"  {name:<14}{run['rows_per_second']:>8.2f}{ratio:>9}{run['peak_bytes'] / 1e9:>9.2f}"
                f"{'' if loss is None else f'{loss:.4f}':>12}  {settings}"
            )
        if part["share_of_limit"] is not None:
            lines += [
                "",
                f"  ours reaches {part['share_of_limit']:.2f} of the machine's matrix rate, every token of every row "
                f"counted, {part['share_of_limit_computed']:.2f} counting only computed ones",
            ]
            lines += [f"  {line}" for line in _breakdown(runs["ours"])]
        lines.append("")
    if limit := found["limit"]:
        lines.append(
            f"limit: {limit['flops_per_second'] / 1e12:.2f} TFLOP/s (bfloat16 {limit['bfloat16'] / 1e12:.2f}, "
            f"float32 {limit['float32'] / 1e12:.2f}), {limit['flops_per_token'] / 1e6:.0f} MFLOP a token"
        )
    for name, start in (found["startup_seconds"] or {}).items():
        lines.append(f"start-up of ours, {name} caches: " + ", ".join(f"{k} {v:.1f} s" for k, v in start.items()))
    return "\n".join(lines)


def _breakdown(run: Mapping[str, Any]) -> list[str]:
    """Where the time of our run went, step by step."""
    seconds = [f"{s:.2f}" for s in run["step_seconds"]]
    tokens = run["computed_tokens"] / max(1e-9, sum(run["step_seconds"][-run["timed_steps"] :]))
    lines = ["seconds a step: " + " ".join(seconds), f"computed tokens: {tokens:,.0f} a second"]
    if run.get("phases"):
        whole = sum(run["phases"].values())
        lines.append("of a step: " + ", ".join(f"{k} {v / whole:.0%}" for k, v in run["phases"].items()))
    return lines
