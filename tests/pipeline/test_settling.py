"""The plan's settings follow the rows and the model, each with its reason."""

from __future__ import annotations

import json
from pathlib import Path

from test_run import write_rows
from tiny import tiny_model, write_tokenizer
from tuneworth.pipeline import running
from tuneworth.task import load_task


def test_the_planned_rank_follows_from_trained_tokens_and_the_adapters_capacity(tmp_path: Path) -> None:
    tiny_model().float().save_pretrained(tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    job = {
        "data.train": str(write_rows(tmp_path / "train.csv", 160, 1)), "models": [str(tmp_path / "model")],
        "arms": ["classical", "lora-short"],
    }  # fmt: skip
    running.run(load_task(None, job), out=tmp_path / "run", until="plan")
    rank = json.loads((tmp_path / "run/plan.json").read_text())["settings"]["rank"]
    # A rank-1 adapter on 2 layers of width 32 (queries 32, keys and values 16, MLP 48): 2 (64 + 2 48 + 64 + 3 80).
    assert rank["value"] == 16
    assert f"{16 * 928 / 1e6:.1f} M parameters hold what" in rank["reason"]
    rows = len((tmp_path / "run/splits/train.jsonl").read_text().splitlines())
    trained = int(rank["reason"].split(" hold what ")[1].split()[0].replace(",", ""))
    assert 2 * rows < trained < 12 * rows  # a word of single bytes or a merge, and the end token
