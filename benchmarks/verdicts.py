"""Is the verdict right? Intervals, error rates, power and break-even by simulation with known truth, verdicts from
samples of real answers held against the verdict from all of them, and forecasts of the learning curve.

    python benchmarks/verdicts.py answers [--set NAME] [--run NAME-run=RUNFOLDER]   once: let arms answer, for the cache
    python benchmarks/verdicts.py --json [--only simulation|samples|curves] [--draws 4000]

Data: the folder in TUNEWORTH_SHARED_DATA, or ../shared/data; answers lie in tuneworth's cache, outside the checkout.
Samples use the answers that are there and say which. All draws are seeded. About 15 minutes on one core.

What the figures mean (the first line of each part is the issue's figure, the others say more):
- coverage: share of intervals that hold the truth, by shape; coverage_mean and coverage_min over shapes where rows
  times min(p, 1 - p) is at least 10 (for graded differences: rows that differ; for groups: 3 groups or more right, and
  wrong), coverage_min_elsewhere over the others.
- false_fine_tune: the largest share, over shapes, of verdicts "fine-tune" where no arm is better and all cost the same.
- power_error: the largest distance, in points, between 80 % and how often the smallest detectable difference is shown.
- break_even_coverage: the least share, over shapes, of intervals that hold the true break-even.
- subsample_contradictions: share of samples' verdicts that contradict the verdict on all rows, where that is one.
- abstentions: share of samples without a verdict where the winner leads by 1.5 times what the sample can show.
- curve_in_band, curve_band_width: from half of the rows, how often the score after all lies in the 90 % band, and the
  median width of that band in points.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from verdict_checks import simulation
from verdict_checks.answers import SETS, from_run, make_answers, stored
from verdict_checks.curves import available, check_curves, more_data_kind
from verdict_checks.samples import check_samples

PARTS = ("simulation", "samples", "curves")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["answers"], help="let arms answer and keep what they say")
    parser.add_argument("--set", action="append", choices=list(SETS), help="answers: only these sets")
    parser.add_argument(
        "--run", action="append", default=[], metavar="NAME=RUNFOLDER", help="answers: of a finished run"
    )
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--draws", type=int, default=4_000, help="draws of each simulated shape")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    if options.what == "answers":
        for pair in options.run:
            name, _, run = pair.partition("=")
            from_run(name, Path(run), say)
        make_answers(options.set or ([] if options.run else list(SETS)), say)
        return
    start, figures = time.monotonic(), {}
    for part in PARTS:
        if options.only in (None, part):
            figures |= globals()[f"_{part}"](options.draws)
    figures["minutes"] = (time.monotonic() - start) / 60
    print(json.dumps(figures, indent=None if options.json else 2))


def _simulation(draws: int) -> dict[str, Any]:
    cells = simulation.coverage(draws, say)
    plain = [cell.covered for cell in cells if cell.plain]
    wrong, together = simulation.false_fine_tune(max(50, draws // 12), say)
    equivalence = simulation.false_equivalence(max(50, draws // 12), say)
    errors = simulation.power_errors(4 * draws, say)
    requests, right = simulation.break_even_coverage(max(50, draws // 10), say)
    return {
        "coverage": {cell.shape: round(cell.covered, 4) for cell in cells},
        "coverage_mean": float(np.mean(plain)),
        "coverage_min": min(plain),
        "coverage_min_elsewhere": min(cell.covered for cell in cells if not cell.plain),
        "coverage_by_kind": _by_kind(cells),
        "false_fine_tune": max(wrong.values()),
        "false_fine_tune_by_shape": wrong,
        "together_coverage_by_shape": together,
        "false_equivalence": max(equivalence.values()),
        "power_error": max(abs(error) for error in errors.values()),
        "power_error_mean": float(np.mean(np.abs(list(errors.values())))),
        "break_even_coverage": min(requests.values()),
        "break_even_coverage_mean": float(np.mean(list(requests.values()))),
        "break_even_correct_coverage": min(right.values()),
    }


def _by_kind(cells: list[simulation.Cell]) -> dict[str, dict[str, float]]:
    """Shapes, mean and least coverage of each kind of interval."""
    kinds: dict[str, list[simulation.Cell]] = {}
    for cell in cells:
        kinds.setdefault(cell.kind, []).append(cell)
    return {
        kind: {
            "shapes": len(found),
            "mean": float(np.mean([cell.covered for cell in found if cell.plain] or [np.nan])),
            "least": min(cell.covered for cell in found),
        }
        for kind, found in kinds.items()
    }


def _samples(draws: int) -> dict[str, Any]:
    answers = stored()
    if not answers:
        say("no stored answers; run: python benchmarks/verdicts.py answers")
        return {"subsample_contradictions": None, "abstentions": None}
    say("stored answers: " + "; ".join(f"{name}: {len(arms)} arms" for name, arms in answers.items()))
    return check_samples(answers, max(2, draws // 1_000), say)


def _curves(draws: int) -> dict[str, Any]:
    if not available():
        say("no data sets here; set TUNEWORTH_SHARED_DATA")
        return {"curve_in_band": None, "curve_band_width": None}
    return {**check_curves(max(3, draws // 2_500), say), "kind_on_a_tenth_of_banking77": more_data_kind()}


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
