"""The searched prompt: instructions, example sets and their number drawn at random, the best chosen on validation.

Random search over few, coarse choices and successive halving (`choosing.py`). The draws are seeded and nested: the
first 8 candidates are the same whether 8 or 32 are afforded. A proposer that writes instructions with a model (as in
DSPy's MIPROv2, Opsahl-Ong et al. 2024) was left out: docs/log.md.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from tuneworth.evaluation.arms import Bench
from tuneworth.evaluation.forms import Form
from tuneworth.evaluation.instructions import reworded
from tuneworth.evaluation.prompts import FULL, with_shots
from tuneworth.evaluation.retrieved import Neighbours, RetrievedForm

MOST_FORMS = 32
_SHOTS = (0, 2, 4, 8, 16)
_RETRIEVED = (2, 4, 8)
_EXAMPLE_SETS = 4


def searched_forms(bench: Bench, neighbours: Neighbours, count: int = MOST_FORMS) -> Sequence[Form]:
    """At most `count` different forms; the first is the plain one, so that a search never ends below zero-shot."""
    chance = random.Random(f"search/{bench.task.seed}")
    bases = reworded(bench.form(FULL), bench.classes)
    options = [(base, kind, shots) for base in bases for kind in ("fixed", "retrieved")
               for shots in (_SHOTS if kind == "fixed" else _RETRIEVED)]  # fmt: skip
    found: dict[str, Form] = {bases[0].name: bases[0]}
    for _ in range(20 * count):
        if len(found) == count:
            break
        base, kind, shots = chance.choice(options)
        draw = chance.randrange(_EXAMPLE_SETS) if kind == "fixed" and shots else 0
        form: Form
        if kind == "retrieved":
            form = RetrievedForm(f"{base.name}, {shots} retrieved", base, neighbours, shots)
        elif shots:
            drawn = with_shots(base, bench.train, shots, bench.task.seed + draw, bench.kind)
            form = replace(drawn, name=f"{base.name}, {shots} shots, set {draw + 1}")
        else:
            form = base
        found.setdefault(form.name, form)
    return list(found.values())
