"""Which metric a task is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuneworth.errors import InputError, nearest
from tuneworth.evaluation.metrics.calls import calls_kit
from tuneworth.evaluation.metrics.chats import chat_kit
from tuneworth.evaluation.metrics.finals import finals_kit
from tuneworth.evaluation.metrics.labels import label_kit
from tuneworth.evaluation.metrics.labelsets import label_set_kit
from tuneworth.evaluation.metrics.metric import Kit, Metric
from tuneworth.evaluation.metrics.objects import object_kit
from tuneworth.evaluation.metrics.own import is_own, own_value
from tuneworth.evaluation.metrics.pairs import pair_kit
from tuneworth.evaluation.metrics.texts import text_kit
from tuneworth.task import Task

JUDGE = "judge"
"""The metric of a verdict that is made from what the task's judge says; rows are scored by the default beside it."""


def main_metric(task: Task, kind: str) -> str:
    """The name of the metric that rows are scored by, and that the verdict of `task` is made from unless a judge is."""
    return metric_names(kind)[0] if task.metric in ("auto", JUDGE) else task.metric


def metric_names(kind: str) -> tuple[str, ...]:
    """The metrics of a kind, the default first."""
    return tuple(_kit(kind, (), None).values)


def choose_metric(
    task: Task, kind: str, labels: Sequence[str], schema: Mapping[str, Any] | None = None, *, allow_code: bool = False
) -> Metric:
    """The main metric of `task`. `schema` is the JSON Schema of extracted objects.

    Raises InputError when the kind has no metric of that name, or when it is a function of the user's and code is not
    allowed, or it cannot be loaded.
    """
    kit = _kit(kind, labels, schema)
    name = main_metric(task, kind)
    if is_own(name):
        return Metric(name, own_value(name, allow_code=allow_code), kit)
    if name not in kit.values:
        known = ", ".join(kit.values)
        hint = nearest(name, kit.values)
        cure = f"{hint} Metrics of {kind}: {known}; or your own as package.module:function"
        raise InputError(f"'{name}' is no metric for answers of kind {kind}", where="metric", cure=cure)
    return Metric(name, kit.values[name], kit)


def _kit(kind: str, labels: Sequence[str], schema: Mapping[str, Any] | None) -> Kit:
    if kind == "classification":
        return label_kit(labels)
    if kind == "multilabel":
        return label_set_kit(labels)
    if kind == "extraction":
        return object_kit(schema)
    if kind == "reasoning":
        return finals_kit()
    if kind == "tools":
        return calls_kit()
    if kind == "preference":
        return pair_kit()
    return chat_kit() if kind == "chat" else text_kit()
