"""A task file, and settings given on the command line, become one frozen `Task`; all mistakes at once."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tuneworth.errors import InputError, Problem, nearest
from tuneworth.task.reference import data_reference, is_hub_id
from tuneworth.task.schema import Section, Task


def load_task(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Task:
    """Read `path` (or start from the defaults) and lay `overrides` (dotted keys) over it.

    Relative data paths in the file are taken from the file's own folder; names of registered data sets
    and of the hub's stay.
    Raises InputError with every mistake: unknown keys (with the nearest known one), wrong types and ranges.
    """
    content: dict[str, Any] = {}
    if path is not None:
        content = _read_yaml(path)
        data = content.get("data")
        if isinstance(data, dict):
            for key in ("train", "validation", "test"):
                name = data.get(key)
                if isinstance(name, str) and not (data_reference(name, path.parent) or is_hub_id(name, path.parent)):
                    data[key] = str((path.parent / name).resolve())
            for key in ("traffic", "documents"):
                if isinstance(data.get(key), str):
                    data[key] = str((path.parent / data[key]).resolve())
        training = content.get("training")
        if isinstance(training, dict) and isinstance(training.get("from"), str):
            training["from"] = str((path.parent / training["from"]).resolve())
    for dotted, value in (overrides or {}).items():
        _put(content, dotted, value)
    return parse_task(content, where=str(path) if path else "command line")


def parse_task(content: Mapping[str, Any], where: str) -> Task:
    """Check a mapping against the schema. Raises InputError that lists every mistake."""
    try:
        return Task.model_validate(content)
    except ValidationError as error:
        raise InputError.of([_problem(detail, where) for detail in error.errors()]) from None


def known_keys(section: type[Section] = Task, prefix: str = "") -> dict[str, Any]:
    """Every dotted key of the task file and its field, in order."""
    keys: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        keys[key] = field
        inner = _section_of(field.annotation)
        if inner:
            keys |= known_keys(inner, key + ".")
    return keys


def _section_of(annotation: Any) -> type[Section] | None:
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, Section)), None)


def _siblings(path: list[str]) -> list[str]:
    """The known keys beside the last part of `path`."""
    section: type[Section] = Task
    names = iter(path[:-1])
    for name in names:
        field = next(field for key, field in section.model_fields.items() if (field.alias or key) == name)
        inner = _section_of(field.annotation)
        if inner is None and typing.get_origin(field.annotation) is dict:  # names of the user's own, then a section
            next(names)
            inner = _section_of(typing.get_args(field.annotation)[1])
        assert inner is not None
        section = inner
    return [field.alias or key for key, field in section.model_fields.items()]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise InputError("there is no such task file", where=str(path), cure="check the path") from None
    except OSError as error:
        raise InputError(f"the task file cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8", where=str(path), cure="save the file as UTF-8") from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or "too deeply nested"
        raise InputError(f"not valid YAML: {what}", where=f"{path}{line}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(
            f"a task file holds keys and values, this one holds a {type(content).__name__}",
            where=str(path),
            cure="run `tuneworth init DATA` to get a task file to start from",
        )
    return content


def _put(content: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = content.setdefault(parent, {})
        if inner is None:
            inner = content[parent] = {}
        if not isinstance(inner, dict):
            raise InputError(f"'{parent}' holds a value, not keys", where=dotted)
        content = inner
    content[last] = value


def _problem(detail: Any, where: str) -> Problem:
    path = [str(part) for part in detail["loc"]]
    key = ".".join(part for part in path if not part.startswith(("literal[", "list[")))
    if detail["type"] == "extra_forbidden":
        return Problem(f"unknown key '{key}'", where, nearest(path[-1], _siblings(path)))
    found = detail.get("input")
    shown = repr(found) if isinstance(found, str | int | float | bool | None) else f"a {type(found).__name__}"
    reason = str(detail["msg"]).removeprefix("Value error, ")
    return Problem(f"'{key}' is {shown}: {reason[:1].lower()}{reason[1:]}", where)
