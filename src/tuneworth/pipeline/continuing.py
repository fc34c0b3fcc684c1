"""Where a training starts: the pre-trained weights, or what the best fine-tuned arm of an earlier run learnt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneworth.errors import InputError
from tuneworth.models.sources import ModelFolder
from tuneworth.store.cache import manifest_problem, sha256_of
from tuneworth.store.run import RunFolder, read_arm
from tuneworth.task import Training

_KEY = "training.from"


@dataclass(frozen=True, slots=True)
class Start:
    """A finished fine-tuned arm: its model folder, and what its arm.json says of how it was trained."""

    run: Path
    arm: str
    record: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The folder of its weights."""
        return RunFolder(self.run).arm(self.arm) / "model"

    def provenance(self) -> dict[str, Any]:
        """What arm.json of the new arm tells of it."""
        weights = sorted(self.folder.glob("*.safetensors"))
        return {"run": str(self.run), "arm": self.arm, "sha256": {path.name: sha256_of(path) for path in weights}}


def find_start(chosen: Training, base: ModelFolder) -> Start | None:
    """The arm of `training.from` with the best validation score, or None when none is named.

    Raises InputError when that run has no fine-tuned arm, or one of another base model, method or rank.
    """
    if chosen.from_ is None:
        return None
    run = Path(chosen.from_)
    folder = RunFolder.existing(run)
    records = [read_arm(folder, name) for name in folder.arm_names()]
    done = [record for record in records if record["family"] == "fine-tune" and record["status"] == "done"]
    tuned = [record for record in done if not record.get("provider")]  # a hosted model's weights are not ours
    if not tuned:
        raise InputError(
            "this run has no finished fine-tuned arm to continue from",
            where=f"{_KEY}: {run}",
            cure="finish it with `tuneworth train RUN`, or leave training.from out",
        )
    best = max(tuned, key=lambda record: float(record["settings"]["validation_score"]))
    start = Start(run.resolve(), best["name"], best)
    problem = _misfit(chosen, base, best) or manifest_problem(start.folder)
    if problem:
        raise InputError(
            f"{best['name']} of this run cannot be continued: {problem}",
            where=f"{_KEY}: {run}",
            cure="use the same models, training.method and training.rank as that run, or leave training.from out",
        )
    return start


def _misfit(chosen: Training, base: ModelFolder, record: dict[str, Any]) -> str:
    learnt = record["settings"]
    if record["model_sha256"] != base.sha256:
        return f"it was trained on {record['model']}, this task's model is {base.id}"
    if chosen.method not in ("auto", learnt["method"]):
        return f"its method is {learnt['method']}, training.method is {chosen.method}"
    if chosen.rank is not None and learnt.get("rank") not in (None, chosen.rank):
        return f"its rank is {learnt['rank']}, training.rank is {chosen.rank}"
    return ""


def continued(chosen: Training, start: Start | None) -> Training:
    """`chosen` with the method and the rank of the start, which cannot differ."""
    if start is None:
        return chosen
    learnt = start.record["settings"]
    return chosen.model_copy(update={"method": learnt["method"], "rank": learnt.get("rank", chosen.rank)})
