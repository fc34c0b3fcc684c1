"""`tuneworth doctor` and `tuneworth models`: what this machine can do, and which models there are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneworth.errors import InputError

if TYPE_CHECKING:
    from tuneworth.models.catalogue import Entry, Wish
    from tuneworth.models.doctor import Diagnosis
    from tuneworth.task import Task

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


def models(
    model: Annotated[str | None, typer.Argument(help="one model in detail: an id below, a hub id, or a folder")] = None,
    size: Annotated[str | None, typer.Option("--size", help="at most so many parameters, as 500M or 3B")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="only this licence, as apache-2.0")] = None,
    use: Annotated[str | None, typer.Option("--use", help="commercial or research: licences must allow it")] = None,
    context: Annotated[int | None, typer.Option("--context", help="at least so many tokens of context")] = None,
    tools: Annotated[bool, typer.Option("--tools", help="only models that call tools")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="only models with a chat template")] = False,
    language: Annotated[str | None, typer.Option("--language", help="only models that know it, as de")] = None,
    as_json: Json = False,
) -> None:
    """List open models with size, context, licence and source, or show one in detail. Downloads nothing."""
    from tuneworth.models.catalogue import USES, Wish, as_of, catalogue, matching

    if use is not None and use not in USES:
        raise InputError(f"'{use}' is no use", where="--use", cure="commercial or research")
    licences = sorted({entry.licence.id for entry in catalogue()})
    if licence is not None and licence not in licences:
        raise InputError(f"no model here has the licence '{licence}'", where="--licence", cure=", ".join(licences))
    wish = Wish(licence, use, _parameters(size), context, tools, chat, language)
    if model is not None:
        _one_model(model, wish, as_json)
        return
    found = matching(wish)
    if as_json:
        typer.echo(
            json.dumps({"schema": "tuneworth.models/1", "as_of": as_of(), "models": [e.to_json() for e in found]})
        )
        return
    table = [("model", "params", "context", "licence", "chat", "tools", "access", "languages"), *map(_row, found)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    typer.echo(f"{len(found)} of {len(catalogue())} models, as of {as_of()}; ? is not known.", err=True)
    typer.echo(
        "A hub id (owner/name) or a folder with config.json, tokenizer.json and *.safetensors works too.", err=True
    )


def _one_model(model: str, wish: Wish, as_json: bool) -> None:
    """Everything known of one model. Raises InputError when it is not as wished."""
    from tuneworth.models.catalogue import entry_of, unmet
    from tuneworth.models.sources import find_architecture

    facts, entry = find_architecture(model), entry_of(model)
    if entry is not None and (missed := unmet(entry, wish)):
        raise InputError(
            f"not what you ask for: {'; '.join(missed)}", where=model, cure="`tuneworth models` with your wishes"
        )
    known: dict[str, Any] = {"id": model, "parameters": facts.parameters, "architecture": facts.to_json()}
    if entry is not None:
        known = entry.to_json()
    if as_json:
        typer.echo(json.dumps({"schema": "tuneworth.model/1", **known}))
        return
    for name, value in {**known, **known.pop("architecture")}.items():
        typer.echo(f"{name.replace('_', ' '):<16}{_shown(value)}")
    if entry is None:
        typer.echo("Licence, languages and template are not in the catalogue: see the model's card.", err=True)


def _shown(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _row(entry: Entry) -> tuple[str, ...]:
    told = {True: "yes", False: "no", None: "?"}
    size = entry.architecture.parameters
    return (
        entry.id,
        f"{size / 1e9:.1f} B" if size >= 1e9 else f"{size / 1e6:.0f} M",
        f"{entry.architecture.context:,}",
        entry.licence.id,
        told[entry.has_template],
        told[entry.calls_tools],
        "package index" if entry.is_embedded else {True: "gated", False: "open", None: "?"}[entry.is_gated],
        " ".join(entry.languages),
    )


def _parameters(text: str | None) -> float | None:
    """500M, 3B or a plain number."""
    if text is None:
        return None
    units = {"k": 1e3, "m": 1e6, "b": 1e9}
    unit = units.get(text[-1:].lower())
    try:
        return float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        raise InputError(f"'{text}' is no size", where="--size", cure="write for example 500M or 3B") from None


def show_advice(task: Task, as_json: bool, *, is_silent: bool = False) -> None:
    """Print the advice on `task`; when silent only what it refuses counts. Raises as `pipeline.advising.advise`."""
    from tuneworth.pipeline.advising import advise

    advice = advise(task)
    if as_json:
        typer.echo(json.dumps(advice, ensure_ascii=False))
    elif not is_silent:
        from tuneworth.console import show_advice as show

        show(advice)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(doctor)
    app.command()(models)
