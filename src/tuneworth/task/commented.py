"""A task as a commented YAML file: each key with its help text, in the order of the schema."""

from __future__ import annotations

from typing import Any

import yaml

from tuneworth.task.reading import known_keys
from tuneworth.task.schema import Task, format_seconds, parse_seconds


def commented_yaml(task: Task, notes: dict[str, str] | None = None) -> str:
    """`task` as YAML with a comment on every key; `notes` adds what was found out about a key."""
    values = task.model_dump(mode="json", by_alias=True)
    lines = [
        "# What tuneworth shall decide and build. Every key is optional but data.train.",
        "# Run it with: tuneworth run --task <this file>",
    ]
    keys = known_keys()
    for key, field in keys.items():
        *parents, name = key.split(".")
        indent = "  " * len(parents)
        value: Any = values
        for part in key.split("."):
            value = value[part]
        comment = " ".join(filter(None, [field.description, (notes or {}).get(key)]))
        if any(other.startswith(f"{key}.") for other in keys):
            lines.append(f"{indent}{name}:  # {comment}")
        else:
            readable = format_seconds(value) if key == "budget" else ""
            shown = readable if readable and parse_seconds(readable) == value else _scalar(value)
            lines.append(f"{indent}{name}: {shown}  # {comment}")
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9).strip()
    return text.removesuffix("...").strip()
