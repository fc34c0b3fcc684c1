"""`tuneworth data`: the commands of the data-set registry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneworth.errors import InputError

if TYPE_CHECKING:
    from tuneworth.store.registry import Version

data_app = typer.Typer(
    help="Register data sets by name and version, and use them wherever a data file goes: tuneworth run NAME@v1.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_REFERENCE = "NAME, NAME@v2 or NAME@ and the first digits of a hash"

Name = Annotated[str, typer.Argument(help="the name: lower-case letters, digits, - and _")]
Which = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help=_REFERENCE)]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]
Part = Annotated[list[Path] | None, typer.Option(help="a file of rows for this part; may be given several times")]
Column = Annotated[str | None, typer.Option(help="column, by number for a table without a header")]


@data_app.command()
def add(
    name: Name,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="data files; their rows follow each other")],
    validation: Part = None,
    test: Part = None,
    unlabelled: Part = None,
    input_: Annotated[str | None, typer.Option("--input", help="input column, where a table has no header")] = None,
    output: Annotated[str | None, typer.Option("--output", help="output column, where a table has no header")] = None,
    note: Annotated[str | None, typer.Option("--note", help="a sentence to find in `data show`")] = None,
    as_json: Json = False,
) -> None:
    """Register the rows of files as a new version of NAME. The files are not needed any more afterwards."""
    from tuneworth.pipeline.datasets import add_files
    from tuneworth.task import Columns

    parts = {"train": files, "validation": validation or [], "test": test or [], "unlabelled": unlabelled or []}
    version, is_new = add_files(name, parts, Columns(input=input_, output=output), note)
    if as_json:
        _print({**_about(version), "new": is_new})
        return
    rows = _rows(version)
    if is_new:
        typer.echo(f"registered {version.name}@v{version.number} ({version.version[:12]}): {rows}")
    else:
        typer.echo(f"nothing new: this content is {version.name}@v{version.number} ({version.version[:12]}): {rows}")
    typer.echo(f"use it where a data file goes: tuneworth run {version.name}@v{version.number}")


@data_app.command("list")
def list_(as_json: Json = False) -> None:
    """List the registered data sets with their newest versions."""
    from tuneworth.store.registry import Registry

    registry, sets = Registry(), []
    for name in registry.names():
        versions = registry.versions(name)
        if versions:
            sets.append({**_about(versions[-1]), "versions": len(versions)})
    if as_json:
        _print({"home": str(registry.folder.parent), "bytes": registry.stored_bytes(), "data_sets": sets})
        return
    if not sets:
        typer.echo("no data set is registered yet; register one with: tuneworth data add NAME FILE")
        return
    table = [("data set", "hash", "versions", "created", "rows")]
    for found in sets:
        rows = ", ".join(f"{part['rows']:,} {key}" for key, part in found["parts"].items())
        newest = f"{found['name']}@v{found['number']}"
        table.append((newest, found["version"][:12], str(found["versions"]), found["created"][:10], rows))
    _table(table)
    typer.echo(f"{registry.stored_bytes():,} bytes in {registry.folder}")


@data_app.command()
def show(
    which: Which,
    rows: Annotated[int, typer.Option("--rows", min=0, max=100, help="show this many of the first rows")] = 3,
    changes: Annotated[bool, typer.Option("--changes", help="list every row that cleaning changed or removed")] = False,
    as_json: Json = False,
) -> None:
    """Show where a version came from, its parts and first rows, and the other versions of its name."""
    from tuneworth.data.changes import summary
    from tuneworth.pipeline.datasets import first_rows, registered
    from tuneworth.store.registry import Registry

    version, _ = registered(which)
    history = Registry().versions(version.name, removed=True)
    listed = Registry().changes(version) if changes else []
    if as_json:
        others = [
            {"version": v.version, "number": v.number, "created": v.created, "removed": v.removed} for v in history
        ]
        shown = {"changes": listed} if changes else {}
        _print({**_about(version), "history": others, "first_rows": first_rows(version, rows), **shown})
        return
    typer.echo(f"{version.name}@v{version.number}  {version.version}")
    typer.echo(f"created  {version.created}" + _origin(version, history))
    for key, part in version.parts.items():
        typer.echo(f"{key:<11}{part.rows:>9,} rows  {part.bytes:>12,} bytes  sha256 {part.sha256}")
    typer.echo(f"columns  {', '.join(version.columns)}")
    for source in version.lineage.get("sources") or []:
        typer.echo(
            f"source   {source['file']} ({source['part']}, {source['rows']:,} rows, sha256 {source['sha256'][:12]})"
        )
    for code, count in (version.lineage.get("repairs") or {}).items():
        typer.echo(f"repair   {code}: {count:,}")
    if version.lineage.get("note"):
        typer.echo(f"note     {version.lineage['note']}")
    if listed:
        typer.echo(summary(listed))
    for row in first_rows(version, rows):
        typer.echo("row      " + _cut(json.dumps(row, ensure_ascii=True)))
    typer.echo("versions")
    for other in history:
        state = f"removed {other.removed[:10]}" if other.removed else _rows(other)
        mark = "*" if other.version == version.version else " "
        typer.echo(
            f"  {mark} v{other.number}  {other.version[:12]}  {other.created[:10]}  {other.lineage['how']:<6} {state}"
        )


@data_app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=_REFERENCE)],
    b: Annotated[str, typer.Argument(metavar="B", help=_REFERENCE)],
    rows: Annotated[int, typer.Option("--rows", min=0, help="show at most this many rows of each kind")] = 5,
    as_json: Json = False,
) -> None:
    """Say how two versions differ: rows that only one of them has, part by part."""
    from tuneworth.pipeline.datasets import difference, registered

    (first, _), (second, _) = registered(a), registered(b)
    found = difference(first, second)
    if as_json:
        parts = {
            part: {
                "only_in_a": [json.loads(row) for row in d.only_in_first],
                "only_in_b": [json.loads(row) for row in d.only_in_second],
                "in_both": d.in_both,
                "same_order": d.same_order,
            }
            for part, d in found.items()
        }
        _print({"a": str(first), "b": str(second), "parts": parts})
        return
    typer.echo(f"- {first.name}@v{first.number} ({first.version[:12]})")
    typer.echo(f"+ {second.name}@v{second.number} ({second.version[:12]})")
    for part, d in found.items():
        order = "" if d.same_order else ", in another order"
        gone, new = len(d.only_in_first), len(d.only_in_second)
        typer.echo(f"{part}: {d.in_both:,} rows in both{order}, {gone:,} only in A, {new:,} only in B")
        for sign, only in (("-", d.only_in_first), ("+", d.only_in_second)):
            for row in only[:rows]:
                typer.echo(f"  {sign} {_cut(json.dumps(json.loads(row), ensure_ascii=True))}")
            if len(only) > rows:
                typer.echo(f"  {sign} and {len(only) - rows:,} more")


@data_app.command()
def export(
    which: Which,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="a folder for all parts, or a .jsonl file for one")],
    as_json: Json = False,
) -> None:
    """Write the rows of a version as JSON Lines; NAME@VERSION:PART for one part."""
    from tuneworth.pipeline.datasets import export as export_rows
    from tuneworth.pipeline.datasets import registered

    version, part = registered(which)
    written = export_rows(version, part or ("" if len(version.parts) > 1 else next(iter(version.parts))), out)
    if as_json:
        _print({"version": version.version, "files": [str(path) for path in written]})
    else:
        for path in written:
            typer.echo(f"wrote {path}")


@data_app.command()
def verify(as_json: Json = False) -> None:
    """Read every stored row and record and compare it with its hash; damage is named and the exit code is 3."""
    from tuneworth.console import ConsoleWatcher
    from tuneworth.store.registry import Registry

    registry = Registry()
    with ConsoleWatcher() as watcher:
        begun: list[int] = []

        def progress(done: int, total: int) -> None:
            if not begun:
                begun.append(total)
                watcher.begin("verifying the registry", total)
            watcher.advance(1)

        damaged = registry.verify(progress)
    if as_json:
        found = [{"file": d.file, "what": d.what, "versions": list(d.versions)} for d in damaged]
        _print({"home": str(registry.folder.parent), "sound": not damaged, "damaged": found})
    elif not damaged:
        count = sum(len(registry.versions(name)) for name in registry.names())
        typer.echo(f"sound: {count:,} versions, {registry.stored_bytes():,} bytes in {registry.folder}")
    for damage in damaged:
        harmed = f" Harmed: {', '.join(damage.versions)}." if damage.versions else ""
        typer.echo(f"error: {damage.file}: {damage.what}.{harmed}", err=True)
    if damaged:
        typer.echo("Cure: restore the files from a backup, or add the source files again: that mends them.", err=True)
        raise typer.Exit(3)


@data_app.command()
def clean(
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"a data file, or a registered set: {_REFERENCE}")],
    test: Annotated[Path | None, typer.Option(help="rows for judging: what is also in them leaves DATA")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="write files instead of a new version")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="a repair that is not done, by its code")] = None,
    contradictions: Annotated[str, typer.Option(help="one input, several answers: keep, majority or drop")] = "keep",
    mask: Annotated[list[str] | None, typer.Option(help="private values to replace: pii-email, pii-card")] = None,
    model: Annotated[str | None, typer.Option(help="take out rows that are too long for this model")] = None,
    input_: Annotated[str | None, typer.Option("--input", help="column that is read")] = None,
    output: Annotated[str | None, typer.Option("--output", help="column of the answer")] = None,
    kind: Annotated[str, typer.Option(help="what the answers are")] = "auto",
    as_json: Json = False,
) -> None:
    """Repair what the audit finds: repeats, leaks, empty and too long rows. Test rows are never touched.

    A registered set gets a new version; a file is cleaned into FILE-clean.jsonl, or --out. Every row that was changed
    or removed is listed with the reason, as it was and as it is.
    """
    from tuneworth.data.cleaning import Repairs
    from tuneworth.pipeline.cleaning import CleaningTask, clean_file, clean_registered, told_in_words, write_cleaned
    from tuneworth.task import Columns, data_reference

    repairs = Repairs.chosen(skip or [], contradictions)
    task = CleaningTask(Columns(input=input_, output=output), kind, repairs, tuple(mask or []), model)
    if data_reference(data) is not None and out is None and test is None:
        version, result, is_new = clean_registered(data, task)
        if as_json:
            _print({**_about(version), "new": is_new, "changes": result.changes, "notes": list(result.notes)})
            return
        typer.echo(told_in_words(result))
        state = "registered" if is_new else "unchanged:"
        typer.echo(f"{state} {version.name}@v{version.number} ({version.version[:12]})")
        return
    result = clean_file(data, test, task)
    source = Path(data)
    files = write_cleaned(result, out or source.with_name(f"{source.stem}-clean.jsonl"))
    if as_json:
        _print({"files": [str(path) for path in files], "changes": result.changes, "notes": list(result.notes)})
        return
    typer.echo(told_in_words(result))
    for path in files:
        typer.echo(f"wrote {path}")


@data_app.command()
def remove(which: Which, as_json: Json = False) -> None:
    """Take one version out and free its rows. Its record stays, so that what was made of it can be explained."""
    from tuneworth.pipeline.datasets import registered
    from tuneworth.store.registry import Registry

    if "@" not in which:
        raise InputError("one version is removed at a time", where=which, cure=f"name it, as {which}@v1")
    version, _ = registered(which)
    Registry().remove(version)
    if as_json:
        _print({"removed": version.version})
    else:
        typer.echo(f"removed {version.name}@v{version.number} ({version.version[:12]})")


def _about(version: Version) -> dict[str, Any]:
    parts = {key: {"rows": p.rows, "bytes": p.bytes, "sha256": p.sha256} for key, p in version.parts.items()}
    record = version.to_json()
    keys = ("name", "version", "number", "created", "columns", "lineage")
    return {"schema": record["schema"], **{key: record[key] for key in keys}, "parts": parts}


def _origin(version: Version, history: list[Version]) -> str:
    parent = next((v for v in history if v.version == version.lineage.get("parent")), None)
    how = {"add": "added", "clean": "cleaned"}[version.lineage["how"]]
    return f", {how}" + (f" after v{parent.number} ({parent.version[:12]})" if parent else "")


def _rows(version: Version) -> str:
    return ", ".join(f"{part.rows:,} {key}" for key, part in version.parts.items()) + " rows"


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cut(text: str, width: int = 140) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _print(document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document, ensure_ascii=False))


@data_app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="a data file, or a folder of them")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="the file to write; its ending says the format")],
    to: Annotated[
        str,
        typer.Option("--to", help="chat, prompt-completion, alpaca, sharegpt, preference, chosen-rejected or table"),
    ],
    part: Annotated[str, typer.Option("--part", help="train, validation or test of a folder")] = "train",
    input_: Annotated[str | None, typer.Option("--input", help="input column, where it is not recognised")] = None,
    output: Annotated[str | None, typer.Option("--output", help="output column, where it is not recognised")] = None,
    group: Annotated[str | None, typer.Option("--group", help="column to keep as the group of a row")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="column to keep as the id of a row")] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite OUT")] = False,
    as_json: Json = False,
) -> None:
    """Write the rows of IN in another shape, exactly. Rows that the shape cannot hold are named, and nothing is
    written."""
    from tuneworth.data.converting import convert as convert_rows
    from tuneworth.data.converting import target_shape
    from tuneworth.data.folders import find_files, split_name
    from tuneworth.data.streaming import open_source
    from tuneworth.task import Columns

    shape = target_shape(to)
    if target.exists() and not force:
        raise InputError("this file exists already", where=str(target), cure="choose another name, or give --force")
    found = find_files(source)
    split = split_name(part, "--part")
    files = found.parts[split]
    if not files:
        raise InputError(f"there are no {part} files", where=str(source), cure="choose another one with --part")
    columns = Columns(input=input_, output=output, group=group, id=id_)
    done = convert_rows(open_source(files, columns, "auto", found.notes), target, shape, split)
    if as_json:
        about = {"rows": done.rows, "shape": shape, "source": done.shape.to_json(), "file": str(target)}
        _print({**about, "left_out": [finding.to_json() for finding in done.left_out]})
        return
    for sentence in done.shape.why:
        typer.echo(sentence, err=True)
    for finding in done.left_out:
        typer.echo(f"Left out: {finding.message}.", err=True)
    typer.echo(f"wrote {done.rows:,} rows of shape {shape} to {target}")
