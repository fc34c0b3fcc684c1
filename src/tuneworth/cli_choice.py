"""`tuneworth doctor` and `tuneworth models`: what this machine can do, and which models there are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tuneworth.models.doctor import Diagnosis

_MARKS = {"ok": " ok ", "note": "note", "missing": "MISS"}

Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]


def doctor(
    as_json: Json = False,
    again: Annotated[
        bool, typer.Option("--again", help="measure the rates anew instead of taking the kept ones")
    ] = False,
) -> None:
    """Say what this machine has, how fast it is, and what is missing."""
    from tuneworth.models.doctor import diagnose

    found = diagnose(again=again)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        typer.echo("\n".join(_diagnosis_lines(found)))


def _diagnosis_lines(found: Diagnosis) -> list[str]:
    machine, rates = found.machine, found.rates
    lines = [
        f"{'system':<16}{machine.system}",
        f"{'processor':<16}{machine.processor}, {machine.cores} cores for this process",
        f"{'matrix products':<16}bf16 {rates.bf16_flops / 1e12:.2f}, fp32 {rates.fp32_flops / 1e12:.2f} TFLOP/s",
        f"{'memory reads':<16}{rates.memory_bytes_per_second / 1e9:.1f} GB/s",
        f"{'precision used':<16}{found.precision}: {found.precision_reason}",
        "",
    ]
    for check in found.checks:
        lines.append(f"[{_MARKS[check.status]}] {check.name:<14}{check.found}")
        if check.cure:
            lines.append(f"{'':<21}{check.cure}")
    missing = [check.name for check in found.checks if check.status == "missing"]
    verdict = f"Missing: {', '.join(missing)}." if missing else "Nothing is missing: the default model trains here."
    return [*lines, "", verdict]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(doctor)
