"""task.yaml becomes one frozen Task; every mistake is reported at once."""

from tuneworth.task.commented import commented_yaml
from tuneworth.task.reading import known_keys, load_task, parse_task
from tuneworth.task.reference import (
    NAME,
    NAME_RULE,
    PARTS,
    Reference,
    data_reference,
    is_hub_id,
    parse_reference,
    set_reference,
)  # fmt: skip
from tuneworth.task.schema import Columns, Decision, FineTune, Provider, Task, Training, format_seconds, parse_seconds

__all__ = [
    "NAME",
    "NAME_RULE",
    "PARTS",
    "Columns",
    "Decision",
    "FineTune",
    "Provider",
    "Reference",
    "Task",
    "Training",
    "commented_yaml",
    "data_reference",
    "format_seconds",
    "is_hub_id",
    "known_keys",
    "load_task",
    "parse_reference",
    "parse_seconds",
    "parse_task",
    "set_reference",
]
