"""The run folder: everything that a decision was made from. It can be resumed, moved and read later.

<run>/
  task.yaml            the resolved task            plan.json     settings, reasons, budget
  audit.json           findings on the data         verdict.json  which arm to use and why
  splits/              train, validation, test      report.html   the same for people
  arms/<arm>/          arm.json (written last: marks the arm as finished), answers.jsonl,
                       model/, training/metrics.jsonl, checkpoints/; of a hosted training job.json and
                       the uploaded training.jsonl, validation.jsonl; of a distilled one taught.jsonl,
                       teaching.json; where probed: robustness.json,
                       forgetting.json, out_of_scope.json, learning_curve.json (of a classical arm)
  race.json            which of several models won    race/         their trainings
  search.json          settings that were tried    search/       their trainings
  probes.json          which probes were made   curve/        trainings of the learning curve
  learning_curve.json  of the best fine-tuned arm
  log.jsonl            what happened when           .lock         held while a process works on the run
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from tuneworth.errors import InputError, RunBusyError
from tuneworth.store.atomic import disk_errors, read_json, sync_folder, write_json, write_text
from tuneworth.store.cache import manifest_problem, write_manifest

_IDENTITY = "# task and data: "


class RunFolder:
    """Paths and files of one run. Reading needs no lock; whoever writes opens it with `locked()` first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None

    @property
    def task(self) -> Path:
        """The resolved task."""
        return self.path / "task.yaml"

    @property
    def audit(self) -> Path:
        """Findings on the data."""
        return self.path / "audit.json"

    @property
    def splits(self) -> Path:
        """The folder of the rows."""
        return self.path / "splits"

    @property
    def plan(self) -> Path:
        """Settings, reasons, budget."""
        return self.path / "plan.json"

    @property
    def race(self) -> Path:
        """Which pre-trained model won the race among several, and by what; only where there was one."""
        return self.path / "race.json"

    @property
    def search(self) -> Path:
        """Which settings were tried, and what they won over those by rule; only where a search was asked for."""
        return self.path / "search.json"

    @property
    def probes(self) -> Path:
        """Which probes were made after the arms, and why not the others."""
        return self.path / "probes.json"

    @property
    def judge(self) -> Path:
        """What the task's judge says of the arms, and whether it agrees with people."""
        return self.path / "judge.json"

    @property
    def learning_curve(self) -> Path:
        """The scores of one fine-tuned arm over the rows it learnt from."""
        return self.path / "learning_curve.json"

    @property
    def verdict(self) -> Path:
        """Which arm to use and why."""
        return self.path / "verdict.json"

    @property
    def report(self) -> Path:
        """The verdict for people."""
        return self.path / "report.html"

    def arm(self, name: str) -> Path:
        """The folder of an arm."""
        return self.path / "arms" / name

    def replies(self, provider: str) -> Path:
        """What a hosted model answered, by request."""
        return self.path / "replies" / f"{provider}.jsonl"

    def arm_record(self, name: str) -> Path:
        """arm.json of an arm: exists once the arm is finished."""
        return self.arm(name) / "arm.json"

    def arm_names(self) -> list[str]:
        """Finished arms, in the order they were finished."""
        records = list(self.path.glob("arms/*/arm.json"))
        return [path.parent.name for path in sorted(records, key=lambda path: (path.stat().st_mtime_ns, path))]

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The run in `path`. Raises InputError when there is none."""
        if not (path / "task.yaml").is_file():
            raise InputError("this is no run folder (it holds no task.yaml)", where=str(path), cure="check the path")
        return cls(path)

    def lock(self) -> None:
        """Work on this run alone; freed by `unlock` or when the process ends. Raises RunBusyError."""
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / ".lock").open("a+b")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read(100).decode("ascii", "replace").strip()
            handle.close()
            raise RunBusyError(
                f"another process works on this run (process {holder or 'unknown'})",
                where=str(self.path),
                cure="wait for it, or choose another folder with --out",
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()).encode())
        handle.flush()
        self._lock = handle

    def unlock(self) -> None:
        """Let others work on this run."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def claim(self, resolved: str, identity: str) -> None:
        """Write the resolved task with the identity of task and data, or check that the folder's is the same.

        Raises InputError when the folder holds another run.
        """
        if not self.task.is_file():
            write_text(self.task, f"{resolved}{_IDENTITY}{identity}\n")
        elif self.identity() != identity:
            raise InputError(
                "this folder holds a run of another task, data or setting",
                where=str(self.path),
                cure="choose another folder with --out, or delete this one",
            )

    def identity(self) -> str:
        """The identity that `claim` wrote; empty when the file was changed by hand."""
        return self.task.read_text("utf-8").rpartition(_IDENTITY)[2].strip()

    def log(self, event: str, **details: Any) -> None:
        """Append one line to log.jsonl."""
        line = orjson.dumps({"time": time.time(), "event": event, **details}, option=orjson.OPT_APPEND_NEWLINE)
        with disk_errors(self.path), (self.path / "log.jsonl").open("ab") as file:
            file.write(line)


class MetricsFile:
    """metrics.jsonl of a training: appended line by line, cut back to a checkpoint's step when it is resumed."""

    def __init__(self, path: Path, *, keep_steps: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _whole_lines(path) if orjson.loads(line)["step"] <= keep_steps]
        write_text(path, "".join(line.decode() + "\n" for line in kept))

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record."""
        with disk_errors(self.path), self.path.open("ab") as file:
            file.write(orjson.dumps(dict(record), option=orjson.OPT_APPEND_NEWLINE))


def write_folder(final: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder that `fill` fills in the place of `final`, whole or not at all, with a manifest."""
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        for leftover in final.parent.glob(f".{final.name}.tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        aside = final.parent / f".{final.name}.tmp-{uuid.uuid4().hex[:8]}"
        aside.mkdir()
        try:
            fill(aside)
            write_manifest(aside)
            if final.exists():
                shutil.rmtree(final)
            aside.rename(final)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_folder(final.parent)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; damaged ones are passed over (the one before is used)."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        if (path / "manifest.json").is_file() and not manifest_problem(path):
            return path
    return None


def write_checkpoint(folder: Path, step: int, fill: Callable[[Path], None], *, keep: int = 2) -> None:
    """Write checkpoint `step`, and only then delete all but the newest `keep`."""
    write_folder(folder / f"step-{step:06d}", fill)
    for old in sorted(folder.glob("step-*"), reverse=True)[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def read_arm(folder: RunFolder, name: str) -> dict[str, Any]:
    """arm.json of a finished arm."""
    return read_json(folder.arm_record(name))


def write_arm(folder: RunFolder, record: Mapping[str, Any]) -> None:
    """Write arm.json: from now on the arm counts as finished."""
    write_json(folder.arm_record(str(record["name"])), {"schema": "tuneworth.arm/1", **record})


def _whole_lines(path: Path) -> list[bytes]:
    """Complete lines; a last line that a killed process left half-written is dropped."""
    if not path.is_file():
        return []
    return [line for line in path.read_bytes().split(b"\n")[:-1] if line]
