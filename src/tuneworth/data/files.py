"""Data sets of any size: jobs of the reader become facts in worker processes, rows are read again only to be compared
or named. Memory is that of one piece a process, and about 170 bytes a row.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tuneworth.data.audit import Audit, Ruler, audit_parts
from tuneworth.data.example import Example
from tuneworth.data.facts import Facts, Inspection, facts_of, joined
from tuneworth.data.findings import LISTED, Finding, RowRef, Split
from tuneworth.data.jsonrows import parse_json_lines
from tuneworth.data.problems import Tally
from tuneworth.data.reading import Verdicts, left_out_findings
from tuneworth.data.streaming import Batch, Job, Source, batch_of
from tuneworth.data.vectors import Vectorise

JOBS_HERE = 4
"""So few jobs are done in this process: starting others takes longer."""

T = TypeVar("T")
Map = Callable[..., Iterator[Any]]


@dataclass(frozen=True, slots=True)
class InFiles:
    """The rows of a source: a `Part` whose Examples are read again when they are looked at."""

    source: Source
    facts: Facts
    starts: NDArray[np.int64]
    """The number of the first row of each job, and at the end the number of all rows."""
    spread: Map
    """`map`, here or over worker processes."""
    listed: int | None = LISTED

    def look(self, rows: Sequence[int] | NDArray[np.int64], at: Callable[[Example], T]) -> list[T]:
        """What `at` returns for some rows, which are in ascending order."""
        numbers = np.asarray(rows, dtype=np.int64)
        bounds = np.searchsorted(numbers, self.starts)
        jobs, wanted = [], []
        for job, start, end in zip(self.source.jobs, bounds, bounds[1:], strict=False):
            if start < end:
                jobs.append(job)
                wanted.append(self.facts.lines[numbers[start:end]])
        return [seen for part in self.spread(partial(read_lines, at=at), jobs, wanted) for seen in part]


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a worker hands back of a job: a batch without its rows, and their facts."""

    facts: Facts
    rest: Batch


def inspect(job: Job, inspection: Inspection) -> Inspected:
    """Read a job and look at its rows."""
    batch = job.read()
    return Inspected(facts_of(batch.examples, inspection), replace(batch, examples=()))


def read_lines(job: Job, lines: NDArray[np.uint32], *, at: Callable[[Example], T]) -> list[T]:
    """What `at` returns for the Examples that begin on some lines of a job, in order."""
    if job.piece.file.format != "json-lines":
        by_line = {example.line: example for example in job.read().examples}
        return [at(by_line[line]) for line in lines.tolist()]
    # One object a line: only the lines that are wanted are parsed.
    data, piece = job.piece.read(), job.piece
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
    starts = np.concatenate([[0], ends, [len(data)]]).tolist()
    seen: list[T] = []
    for line in lines.tolist():
        place = line - piece.line
        tally = Tally(piece.file.shown)
        rows = parse_json_lines(data[starts[place] : starts[place + 1]], line, piece.start + starts[place], tally)
        seen += [at(example) for example in batch_of(rows, job.layout).examples]
    return seen


def audit_files(
    sources: Mapping[Split, Source],
    *,
    ruler: Ruler | None = None,
    vectorise: Vectorise | None = None,
    traffic: Sequence[Example] = (),
    seed: int = 0,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda jobs: None,
) -> Audit:
    """The audit of files of any size; train is given, the others may be. `advance` is called with 1 after each job.

    A repeated row has the id of the first in findings. Raises InputError with the malformed rows, as reading does.
    """
    kind = sources["train"].shape.kind
    inspection = Inspection(kind, ruler.special_tokens if ruler else ())
    jobs = sum(len(source.jobs) for source in sources.values())
    with _processes(jobs, workers) as spread:
        parts: dict[Split, InFiles] = {}
        dropped: list[Finding] = []
        for split, source in sources.items():
            parts[split], left_out = _inspect_all(source, inspection, split, spread, advance)
            dropped += left_out
        empty = replace(parts["train"], facts=facts_of((), inspection))
        order: tuple[Literal["train"], Literal["validation"], Literal["test"]] = ("train", "validation", "test")
        stacked = {split: parts.get(split, empty) for split in order}
        return audit_parts(
            stacked, kind=kind, ruler=ruler, vectorise=vectorise, traffic=traffic, dropped=dropped, seed=seed
        )


@contextmanager
def _processes(jobs: int, workers: int | None) -> Iterator[Map]:
    count = workers if workers is not None else min(jobs, len(os.sched_getaffinity(0)))
    if jobs <= JOBS_HERE or count < 2:
        yield map
        return
    pool: Executor
    # Not forked: threads of numpy and polars do not survive that.
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def _inspect_all(
    source: Source, inspection: Inspection, split: Split, spread: Map, advance: Callable[[int], None]
) -> tuple[InFiles, Sequence[Finding]]:
    found: list[Facts] = []
    left_out: list[tuple[str, RowRef]] = []
    verdicts = Verdicts(source.file)
    for inspected in spread(partial(inspect, inspection=inspection), source.jobs):
        found.append(inspected.facts)
        left_out += inspected.rest.left_out
        verdicts.add(inspected.rest)
        advance(1)
    verdicts.raise_errors()
    starts = np.cumsum([0, *map(len, found)])
    noted = (*left_out_findings(left_out, split), *verdicts.noted(split))
    return InFiles(source, joined(found), starts, spread), noted
