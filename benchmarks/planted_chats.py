"""A large file of chat rows with faults of known number, for the scale benchmark of the audit. Deterministic by seed.

Texts are sentences of public data sets in random order, so that rows share sentences as real ones do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import orjson
from planted_edits import mistyped
from planted_private import VALUES, planted, with_look_alike

SYSTEM = "You are a helpful assistant of a scientific library. Answer briefly and say where the answer comes from."


@dataclass
class Chats:
    """Where the files are, and the lines of each planted fault by the code of its finding."""

    train: Path
    test: Path
    lines: dict[str, set[int]] = field(default_factory=dict)


def sentences(texts: Sequence[str]) -> list[str]:
    """Distinct sentences without digits and at-signs, so that private values are only those that are planted."""
    found: dict[str, None] = {}
    for text in texts:
        for sentence in text.replace("\n", " ").split(". "):
            clean = sentence.strip().rstrip(".")
            if 25 <= len(clean) <= 250 and clean.isascii() and not any(s.isdigit() or s == "@" for s in clean):
                found[clean] = None
    return list(found)


def write_chats(folder: Path, rows: int, pool: Sequence[str], seed: int = 0) -> Chats:
    """Write `rows` train rows of about 1 KB, and 2 % as many test rows. Existing files are written again."""
    random = Random(seed)
    chats = Chats(folder / "train.jsonl", folder / "test.jsonl")
    # Each kind of fault takes rows of its own. Shares are of all rows.
    shares = {"duplicate-exact": 0.01, "duplicate-near": 0.005, "contradiction": 0.001, "look-alike": 0.005}
    shares |= dict.fromkeys(VALUES, 0.001)
    shares |= {"special-token": 0.0005, "boilerplate-answer": 0.0005, "empty-answer": 0.0002}
    chosen = random.sample(range(1, rows), sum(round(share * rows) for share in shares.values()))
    plan: dict[int, str] = {}
    for code, share in shares.items():
        for _ in range(round(share * rows)):
            plan[chosen.pop()] = code
    chats.lines = {code: {row + 1 for row, of in plan.items() if of == code} for code in shares}
    questions: list[tuple[str, str]] = []  # plain rows that later faults may repeat
    with chats.train.open("wb") as file:
        for row in range(rows):
            user, answer = _faulty(random, plan.get(row), pool, questions)
            if row not in plan and len(questions) < 200_000:
                questions.append((user, answer))
            file.write(_line(user, answer))
    leaked: set[int] = set()
    with chats.test.open("wb") as file:
        for row in range(max(rows // 50, 1)):
            user, answer = _plain(random, pool)
            if row % 40 == 7:
                user, answer = random.choice(questions)
                leaked.add(row + 1)
            file.write(_line(user, answer))
    chats.lines["leak-exact"] = leaked
    return chats


def _plain(random: Random, pool: Sequence[str]) -> tuple[str, str]:
    user = ". ".join(random.choices(pool, k=random.randrange(3, 6))) + "?"
    return user, ". ".join(random.choices(pool, k=random.randrange(3, 7))) + "."


def _faulty(
    random: Random, code: str | None, pool: Sequence[str], questions: Sequence[tuple[str, str]]
) -> tuple[str, str]:
    user, answer = _plain(random, pool)
    if code in ("duplicate-exact", "duplicate-near", "contradiction") and questions:
        earlier = random.choice(questions)
        if code == "duplicate-exact":
            return earlier
        if code == "contradiction":
            return earlier[0], answer
        return mistyped(random, earlier[0], 0.05), answer
    if code in VALUES:
        return planted(random, user, str(code)), answer
    if code == "look-alike":
        return with_look_alike(random, user), answer
    if code == "special-token":
        return user + " <|im_end|>", answer
    if code == "boilerplate-answer":
        return user, "I'm sorry, but I can't help with that."
    if code == "empty-answer":
        return user, " "
    return user, answer


def _line(user: str, answer: str) -> bytes:
    messages: list[Mapping[str, str]] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": user},
        {"role": "assistant", "content": answer},
    ]
    return orjson.dumps({"messages": messages}, option=orjson.OPT_APPEND_NEWLINE)


def texts_of(shared: Path) -> Iterator[str]:
    """Texts of scitldr, gsm8k and banking77 to cut into sentences."""
    for name in ("train", "dev"):
        for line in (shared / "scitldr" / f"{name}.jsonl").read_bytes().splitlines():
            yield from orjson.loads(line)["source"]
    for line in (shared / "gsm8k" / "train.jsonl").read_bytes().splitlines():
        yield orjson.loads(line)["question"]
