"""What a report is made from: the documents that the stages of a run wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Document: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReportData:
    """The documents of a run. Any of them, and any key in them, may be missing: the report says "not
    measured".

    `task`, `audit`, `plan`, `verdict`, `race` and `search` are task.yaml, audit.json, plan.json and so on.
    Each of `arms` is an arm.json: name, family, model, status, why, prompt (a list of {role, content}), decoding,
    settings, confusions [{wanted, parsed, count}], classes [{label, rows, recall, precision}], worst [{id,
    line, input, wanted, raw, score}], and training {metrics: [{step, loss, ...}], evaluations: [{step,
    validation_loss, validation_score}]}. `answers` may add what any arm answered: {row id: {arm name: {raw,
    score}}}; without it an arm's answer to a row is known only where the row is among that arm's worst.
    """

    task: Document | None = None
    audit: Document | None = None
    plan: Document | None = None
    verdict: Document | None = None
    race: Document | None = None
    search: Document | None = None
    arms: Sequence[Document] = ()
    answers: Mapping[str, Mapping[str, Document]] = field(default_factory=dict)
