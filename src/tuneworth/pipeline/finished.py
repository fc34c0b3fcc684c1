"""A run folder as Python sees it, and its arms ready to talk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneworth.data import Example, Message
from tuneworth.data.documents import read_passages
from tuneworth.errors import InputError
from tuneworth.evaluation.documents import DocumentsForm, Passages
from tuneworth.evaluation.prompts import PromptForm, place
from tuneworth.evaluation.retrieved import Neighbours
from tuneworth.evaluation.watching import Silent
from tuneworth.inference import Chat, Sampling
from tuneworth.models.machine import this_machine
from tuneworth.pipeline.preparing import read_splits, vectors_of
from tuneworth.pipeline.trainable import trainable
from tuneworth.pipeline.workshop import local_model
from tuneworth.rendering import Tools
from tuneworth.store.atomic import read_json
from tuneworth.store.run import RunFolder, read_arm
from tuneworth.task import load_task

Prepare = Callable[[Sequence[Mapping[str, Any]]], tuple[list[dict[str, Any]], list[Any]]]
"""A conversation becomes what is shown before it, and itself as the model reads it."""


class Run:
    """A run folder as Python sees it."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder.existing(path)
        self.path = path

    @property
    def verdict(self) -> dict[str, Any]:
        """verdict.json."""
        return read_json(self.folder.verdict)

    @property
    def audit(self) -> dict[str, Any]:
        """audit.json."""
        return read_json(self.folder.audit)

    @property
    def plan(self) -> dict[str, Any]:
        """plan.json."""
        return read_json(self.folder.plan)

    @property
    def report(self) -> Path:
        """The path of report.html."""
        return self.folder.report

    def arm(self, name: str) -> dict[str, Any]:
        """arm.json of an arm."""
        return read_arm(self.folder, name)

    @property
    def model(self) -> ArmChat:
        """The winning arm (or the best model arm when none has won), ready to talk."""
        return self.chat_with(None)

    def chat_with(self, arm: str | None) -> ArmChat:
        """An arm that runs on a local model, ready to talk. Raises InputError when there is none of that name."""
        records = {name: self.arm(name) for name in self.folder.arm_names()}
        usable = [name for name, record in records.items() if "opening" in record and "provider" not in record]
        if arm is None:
            winner = self.verdict["winner"] if self.folder.verdict.is_file() else None
            arm = winner if winner in usable else max(usable, key=lambda name: self.arm(name)["score"], default=None)
        if arm is None or arm not in usable:
            raise InputError(
                f"there is no finished model arm '{arm}'",
                where=str(self.path),
                cure=f"choose one of {usable}",
            )
        record = self.arm(arm)
        local = local_model(record["model"], this_machine(), self.plan["settings"]["precision"]["value"])
        if record["family"] == "fine-tune":
            local.put_on(self.folder.arm(arm) / "model")
        decoding = record["decoding"]
        labels = read_splits(self.folder).labels if decoding in ("constrained", "scored") else ()
        return ArmChat(
            arm,
            local.chat(labels, scored=decoding == "scored", schema=record.get("json_schema")),
            record["opening"],
            self._prepared(record["settings"]),
            record.get("keeps_own_system", False),
            record["max_new_tokens"],
        )

    def _prepared(self, settings: Mapping[str, Any]) -> Prepare:
        """How an arm prepares a conversation: training rows like it shown before it, or passages put into it."""
        retrieved, passages = settings.get("retrieved", 0), settings.get("passages", 0)
        task = load_task(self.folder.task)
        if retrieved:
            rows = trainable(read_splits(self.folder), task).train
            neighbours = Neighbours.of(rows, vectors_of(Silent()), task.seed)
            return lambda talk: (
                PromptForm("", None, neighbours.nearest(_asking(talk), retrieved)).opening(),
                list(talk),
            )
        if passages and task.data.documents:
            found = Passages.of(read_passages(Path(task.data.documents)))
            form = DocumentsForm("", PromptForm("", None), found, passages)
            return lambda talk: ([], form.messages(_asking(talk)))
        return lambda talk: ([], list(talk))


def _asking(talk: Sequence[Mapping[str, Any]]) -> Example:
    """A conversation as a row without an answer."""
    messages = tuple(Message(message["role"], message.get("content") or "") for message in talk)
    return Example("", messages, "", "", 0)


@dataclass(frozen=True, slots=True)
class ArmChat:
    """An arm that answers as it was judged: its own system text and examples come before the user's messages."""

    name: str
    model: Chat
    opening: list[dict[str, Any]]
    prepare: Prepare
    keeps_own_system: bool = False
    judged_tokens: int = 256
    """The longest answer with which the arm was judged."""

    def chat(
        self, messages: list[dict[str, Any]], *, tools: Tools = (), max_new_tokens: int | None = None,
        temperature: float = 0.0,
    ) -> str:  # fmt: skip
        """The whole answer to a conversation; messages, calls and tools in OpenAI's shape."""
        shown, talk = self.prepare(messages)
        placed = place([*self.opening, *shown], talk, keeps_own=self.keeps_own_system)
        most = max_new_tokens or self.judged_tokens
        return self.model.chat(placed, Sampling(temperature=temperature), tools=tools, max_new_tokens=most)
