"""The rows of the training benchmark: rendered once by tuneworth, trained by everybody.

`short` is the short prompt form (about 43 tokens a row); `shared_prefix` is the full form, which states all labels
(about 600 tokens a row, nearly all of them the same in every row).
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path

from tuneworth.data import Example, Message, read_examples
from tuneworth.evaluation.prompts import FULL, SHORT, prompt_form
from tuneworth.rendering import Renderer
from tuneworth.task import Columns, Task, load_task
from tuneworth.training import Row, epoch_batches

FORMS = {"short": SHORT, "shared_prefix": FULL}
SEED = 0
_SUBJECTS = ("card", "transfer", "top_up", "cash", "account", "currency", "refund", "payment", "identity", "app", "atm")
_EVENTS = ("arrival_date", "not_working", "wrong_amount", "fee_charged", "still_pending", "how_to_change", "declined")
_WORDS = "i my the a to is it for why can how what when do you not have this was in on and from been"


@dataclass(frozen=True, slots=True)
class Source:
    """Labelled texts and what they are: `banking77`, or `synthetic` where that is not on this machine."""

    name: str
    examples: tuple[Example, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is trained, step by step, and the rows that judge the result. `pool` is the training rows as given to
    tuneworth; its own order of them, with `SEED`, is `batches`, which everybody trains."""

    name: str
    source: str
    pool: tuple[Row, ...]
    batches: tuple[tuple[Row, ...], ...]
    evaluation: tuple[Row, ...]

    @property
    def tokens_a_row(self) -> float:
        """Mean number of tokens of a training row."""
        return sum(len(row.ids) for row in self.pool) / len(self.pool)


def find_source() -> Source:
    """BANKING77's training rows by TUNEWORTH_SHARED_DATA or ../shared/data, else a stand-in of the same lengths."""
    root = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get("TUNEWORTH_SHARED_DATA", root)) / "banking77" / "train.csv"
    if not path.is_file():
        return synthetic()
    examples = read_examples(path, Columns(), "classification").examples
    return Source("banking77", examples, tuple(sorted({example.answer for example in examples})))


def synthetic(rows: int = 2000) -> Source:
    """Random words under 77 labels: as long as BANKING77's rows, and nothing to learn but the labels' spelling."""
    chance = random.Random(SEED)
    labels = tuple(sorted(f"{subject}_{event}" for subject in _SUBJECTS for event in _EVENTS))
    examples = []
    for number in range(rows):
        text = " ".join(chance.choices(_WORDS.split(), k=max(3, round(chance.lognormvariate(2.3, 0.5)))))
        examples.append(
            Example(f"row-{number}", (Message("user", text + "?"),), chance.choice(labels), "synthetic", number + 1)
        )
    return Source("synthetic", tuple(examples), labels)


def make_workload(
    name: str, source: Source, renderer: Renderer, *, steps: int, batch_rows: int, evaluation_rows: int
) -> Workload:
    """`steps` batches of training rows and `evaluation_rows` others, the same at every call."""
    form = prompt_form(FORMS[name], _task(), "classification", source.labels)
    chosen = random.Random(SEED).sample(range(len(source.examples)), steps * batch_rows + evaluation_rows)
    rows = []
    for index in chosen:
        example = source.examples[index]
        rendered = renderer.training([*form.messages(example), {"role": "assistant", "content": example.answer}])
        rows.append(Row(example.id, rendered.ids, rendered.trained))
    pool = tuple(rows[evaluation_rows:])
    order = epoch_batches([len(row.ids) for row in pool], batch_rows, SEED, 0)
    batches = tuple(tuple(sorted((pool[i] for i in batch), key=lambda row: len(row.ids))) for batch in order)
    return Workload(name, source.name, pool, batches, tuple(rows[:evaluation_rows]))


def write_rows(workload: Workload, path: Path) -> None:
    """The rows as `job.read_job` reads them."""

    def plain(row: Row) -> dict[str, object]:
        return {"id": row.id, "ids": list(row.ids), "trained": [int(trained) for trained in row.trained]}

    path.write_text(
        json.dumps(
            {
                "workload": workload.name,
                "source": workload.source,
                "pool": [plain(row) for row in workload.pool],
                "batches": [[plain(row) for row in batch] for batch in workload.batches],
                "evaluation": [plain(row) for row in workload.evaluation],
            }
        ),
        "utf-8",
    )


def _task() -> Task:
    return load_task(None, {})
