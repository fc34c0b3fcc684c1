"""SNIPS (https://github.com/MiuLab/SlotGated-SLU, data/snips) as JSON Lines with an intent and the slots as JSON text.

    python prepare.py FOLDER-WITH-train-valid-test OUT-FOLDER

`seq.in` holds words, `seq.out` a tag for each (O, B-slot, I-slot), `label` the intent, line by line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def slots_of(words: list[str], tags: list[str]) -> dict[str, list[str]]:
    """The values of each slot, in the order of their first words."""
    found: dict[str, list[str]] = {}
    for word, tag in zip(words, tags, strict=True):
        if tag.startswith("B-"):
            found.setdefault(tag[2:], []).append(word)
        elif tag.startswith("I-"):
            values = found.setdefault(tag[2:], [""])
            values[-1] = f"{values[-1]} {word}".strip()
    return found


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows of one part: text, intent, and slots as JSON text."""
    texts, tags, intents = ((folder / name).read_text("utf-8").splitlines() for name in ("seq.in", "seq.out", "label"))
    rows = []
    for text, tagged, intent in zip(texts, tags, intents, strict=True):
        slots = json.dumps(slots_of(text.split(), tagged.split()), ensure_ascii=False)
        rows.append({"text": text.strip(), "intent": intent.strip(), "slots": slots})
    return rows


def main(source: Path, out: Path) -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl."""
    out.mkdir(parents=True, exist_ok=True)
    for part in ("train", "valid", "test"):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows_of(source / part))
        (out / f"{part}.jsonl").write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
