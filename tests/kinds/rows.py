"""Small sets of rows of every kind, made by rules, for runs on a tiny model."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any

Row = dict[str, Any]
COLOURS, THINGS = ("red", "blue", "green"), ("lamp", "chair", "table", "clock")
TOOL = {
    "type": "function",
    "function": {"name": "order", "parameters": {"type": "object", "properties": {"thing": {"type": "string"}}}},
}


def rows_of(kind: str, count: int, seed: int) -> list[Row]:
    """`count` rows of a kind."""
    chance = random.Random(f"{kind}/{seed}")
    return [_MAKERS[kind](chance, _name(chance)) for _ in range(count)]


def write_rows(path: Path, kind: str, count: int, seed: int) -> Path:
    """The same as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(kind, count, seed)))
    return path


def _name(chance: random.Random) -> str:
    """Words of chance, so that no two rows are near duplicates."""
    return " ".join("".join(chance.choices(string.ascii_lowercase, k=7)) for _ in range(5))


def _multilabel(chance: random.Random, name: str) -> Row:
    colours = [colour for colour in COLOURS if chance.random() < 0.5]
    return {"text": f"item {name}: {' and '.join(colours) or 'plain'}", "labels": colours}


def _extraction(chance: random.Random, name: str) -> Row:
    found = {"thing": chance.choice(THINGS), "colour": chance.choice(COLOURS)}
    if chance.random() < 0.3:
        found["count"] = chance.choice(["2", "3", "4"])
    return {"text": f"{' '.join(found.values())} {name}", "answer": json.dumps(found)}


def _generation(chance: random.Random, name: str) -> Row:
    words = chance.choices(THINGS, k=4)
    article = f"The {words[0]} {name} stands by the {words[1]} and {words[2]}."
    return {"article": article, "headline": f"New {words[0]} by the {words[1]} of {name}"}


def _reasoning(chance: random.Random, name: str) -> Row:
    a, b = chance.randrange(2, 50), chance.randrange(2, 50)
    return {"question": f"{name}: {a} and {b}?", "answer": f"{a} + {b} = {a + b}\n#### {a + b}"}


def _chat(chance: random.Random, name: str) -> Row:
    thing, colour = chance.choice(THINGS), chance.choice(COLOURS)
    return {
        "messages": [
            {"role": "user", "content": f"I want a {thing} ({name})"},
            {"role": "assistant", "content": "Which colour?"},
            {"role": "user", "content": colour},
            {"role": "assistant", "content": f"A {colour} {thing}."},
        ]
    }


def _tools(chance: random.Random, name: str) -> Row:
    thing = chance.choice(THINGS)
    talk: list[Row] = [{"role": "user", "content": f"order a {thing} ({name})"}]
    if chance.random() < 0.7:
        call = {"name": "order", "arguments": json.dumps({"thing": thing})}
        talk += [
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": "c1", "content": '{"done": true}'},
        ]
    return {"messages": [*talk, {"role": "assistant", "content": f"Your {thing}."}], "tools": [TOOL]}


def _preference(chance: random.Random, name: str) -> Row:
    thing = chance.choice(THINGS)
    return {"prompt": f"Sell a {thing} ({name})", "chosen": f"A fine {thing} of oak.", "rejected": f"bad {thing} junk"}


_MAKERS = {
    "multilabel": _multilabel,
    "extraction": _extraction,
    "generation": _generation,
    "reasoning": _reasoning,
    "chat": _chat,
    "tools": _tools,
    "preference": _preference,
}
