"""How fast a large data set is read with full validation, and in how much memory.

    python benchmarks/reading_speed.py [--rows 1000000] [--processes 2] [--shape chat|tools|csv] [--file PATH]

Rows are made from a seeded word list, about 1 KB each. Every job of the source is read in a pool of processes: parsed,
checked, and made into Examples; only counts come back. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tuneworth.data import Job, open_source
from tuneworth.task import Columns

TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}


def lines(rows: int, shape: str) -> Iterator[str]:
    """Seeded rows of about 1 KB."""
    chance = random.Random(0)
    words = [f"word{n}" for n in range(3000)] + ["café", "naïve", "“quoted”", "12:30", "<b>"]
    texts = [" ".join(chance.choices(words, k=50)) for _ in range(5000)]
    if shape == "csv":
        yield "text,label"
    for n in range(rows):
        question, answer = f"{n} {chance.choice(texts)}", f"{chance.choice(texts)} {n}"
        if shape == "csv":
            yield f'"{question}, ""so""\n{answer}",{"abcdefgh"[n % 8]}'
            continue
        messages: list[dict[str, object]] = [
            {"role": "system", "content": "You are the helpful assistant of a shop."},
            {"role": "user", "content": question},
        ]
        row: dict[str, object] = {"messages": messages}
        if shape == "tools":
            function = {"name": "find", "arguments": json.dumps({"n": n})}
            calls = [{"id": "c1", "type": "function", "function": function}]
            messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            messages.append({"role": "tool", "tool_call_id": "c1", "content": chance.choice(texts)[:200]})
            row["tools"] = [TOOL]
        messages.append({"role": "assistant", "content": answer})
        yield json.dumps(row, ensure_ascii=False)


def read(job: Job) -> tuple[int, dict[str, int], int]:
    """(examples, problems by code, largest memory of this process in KiB)."""
    batch = job.read()
    return len(batch.examples), dict(batch.counts), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Make the file unless it is given, read it, print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--shape", choices=("chat", "tools", "csv"), default="chat")
    parser.add_argument("--file", type=Path, help="where the rows are kept; made when it is not there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.file or Path(folder) / ("rows.csv" if given.shape == "csv" else "rows.jsonl")
        if not path.exists():
            with path.open("w", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in lines(given.rows, given.shape))
        start = time.monotonic()
        source = open_source(path, Columns(), "auto")
        opened = time.monotonic() - start
        counts: Counter[str] = Counter()
        examples, memory = 0, 0
        with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
            for read_, problems, peak in pool.imap(read, source.jobs):
                examples += read_
                counts.update(problems)
                memory = max(memory, peak)
        seconds = time.monotonic() - start
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured = {
        "rows": examples,
        "bytes": sum(job.piece.end - job.piece.start for job in source.jobs),
        "jobs": len(source.jobs),
        "processes": given.processes,
        "seconds_to_open": round(opened, 2),
        "seconds": round(seconds, 2),
        "problems": counts,
        "peak_mib_of_a_worker": memory >> 10,
        "peak_mib_of_the_parent": own >> 10,
    }
    sys.stdout.write(json.dumps(measured) + "\n")


if __name__ == "__main__":
    main()
