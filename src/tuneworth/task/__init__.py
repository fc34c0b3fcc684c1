"""task.yaml becomes one frozen Task; every mistake is reported at once."""

from tuneworth.task.commented import commented_yaml
from tuneworth.task.reading import known_keys, load_task, parse_task
from tuneworth.task.schema import Columns, Decision, Task, Training, format_seconds, parse_seconds

__all__ = [
    "Columns",
    "Decision",
    "Task",
    "Training",
    "commented_yaml",
    "format_seconds",
    "known_keys",
    "load_task",
    "parse_seconds",
    "parse_task",
]
