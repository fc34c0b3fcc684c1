"""The judge of all engines: plain transformers and peft in float32 on rows that nobody trained on.

Reads {"rows", "model", "threads", "device", "result", "adapters": {name: folder}}; writes {name: mean negative
log-likelihood per trained token}. An adapter that plain peft cannot load ends it with an error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from hugging_face import padded
from job import Row
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

_ROWS = 8


@torch.inference_mode()
def evaluation_loss(model: torch.nn.Module, rows: list[Row], device: str) -> float:
    """Mean over all trained tokens of all rows."""
    total, trained = 0.0, 0
    for start in range(0, len(rows), _ROWS):
        batch = padded(rows[start : start + _ROWS], device)
        target = batch.pop("labels")[:, 1:].flatten()
        logits = model(**batch).logits[:, :-1].flatten(0, 1)
        total += cross_entropy(logits, target, reduction="sum").item()
        trained += int((target != -100).sum())
    return total / trained


def main(path: Path) -> None:
    """Judge every adapter on a model of its own."""
    task = json.loads(path.read_text("utf-8"))
    torch.set_num_threads(task["threads"])
    rows = [Row(r["ids"], r["trained"]) for r in json.loads(Path(task["rows"]).read_text("utf-8"))["evaluation"]]
    found = {}
    for name, folder in task["adapters"].items():
        base = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32).to(task["device"])
        found[name] = evaluation_loss(PeftModel.from_pretrained(base, folder).eval(), rows, task["device"])
    Path(task["result"]).write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
