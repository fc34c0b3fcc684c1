"""Simulation with known truth: do intervals cover, tests err as seldom as they say, and forecasts of power hold?

Every figure comes from the functions that the verdict itself uses. Right and wrong rows of two arms are drawn from a
bivariate normal; graded scores from betas, with a heap at 0 or 1 where outputs have one; groups from a normal effect
that the rows of a group share. All draws are seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, multivariate_normal, norm

from tuneworth.decision.costs import break_even
from tuneworth.decision.power import smallest_detectable_difference
from tuneworth.decision.records import ArmResult, Price, Terms
from tuneworth.decision.statistics import (
    SeedSpread,
    difference_intervals,
    mean_intervals,
    share_interval,
    tango_interval,
    with_seeds,
)
from tuneworth.decision.verdict import judge
from tuneworth.task import Decision

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
ROWS = (50, 100, 200, 500, 1_000, 5_000)
_AT_ONCE = 4_000_000  # values drawn at once
PRICE = Price(0.1, "task", None, "")


class Cell(NamedTuple):
    """How often intervals of one shape covered; `plain` where enough rows are right and wrong to ask for 94 to
    96.5 %."""

    shape: str
    covered: float
    draws: int
    plain: bool

    @property
    def kind(self) -> str:
        """The kind of interval, as the shape's name begins."""
        words = self.shape.split()
        return (
            words[0]
            + (" in groups" if "groups=" in self.shape else "")
            + (" difference" if "difference" in words else "")
        )


class Drawn(NamedTuple):
    """Scores or differences [draws, rows] and the mean they were drawn with."""

    values: Floats
    mean: float


def coverage(draws: int, say: Callable[[str], None]) -> list[Cell]:
    """Coverage in every shape."""
    cells: list[Cell] = []
    for name, part in (
        ("shares", _shares), ("paired shares", _paired_shares), ("graded", _graded), ("groups", _groups),
        ("seeds", _seeds),
    ):  # fmt: skip
        found = list(part(np.random.default_rng(len(cells)), draws))
        plain = [cell.covered for cell in found if cell.plain]
        mean = f"mean {np.mean(plain):.4f}, " if plain else ""
        say(f"{name}: {len(found)} shapes, {mean}least {min(c.covered for c in found):.4f}")
        cells += found
    return cells


def _covered(low: Floats, high: Floats, truth: float, weights: Any = None) -> float:
    slack = 1e-9  # a bound that is the truth covers it
    return float(np.average((low - slack <= truth) & (truth <= high + slack), weights=weights))


def _shares(_: np.random.Generator, draws: int) -> Iterator[Cell]:
    for rows in ROWS:
        for accuracy in (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99):
            counts = np.arange(rows + 1)
            low, high = share_interval(counts, rows, CONFIDENCE)
            plain = rows * min(accuracy, 1 - accuracy) >= 10 - 1e-9
            chances = binom.pmf(counts, rows, accuracy)  # no draws: every count with its chance
            yield Cell(f"share n={rows} p={accuracy}", _covered(low, high, accuracy, chances), draws, plain)


def joint(a: float, b: float, correlation: float) -> float:
    """Chance that both of two arms are right, of accuracies a and b, if what lies under them correlates so."""
    covariance = [[1, correlation], [correlation, 1]]
    return float(multivariate_normal([0, 0], covariance).cdf([norm.ppf(a), norm.ppf(b)]))


def _paired_shares(rng: np.random.Generator, draws: int) -> Iterator[Cell]:
    pairs = ((0.05, 0.05), (0.1, 0.2), (0.3, 0.3), (0.5, 0.55), (0.7, 0.8), (0.85, 0.85), (0.9, 0.95), (0.98, 0.99))
    for rows in ROWS:
        for a, b in pairs:
            for correlation in (0.0, 0.4, 0.8, 0.95):
                both = joint(a, b, correlation)
                shares = np.clip([a - both, b - both, 1 - a - b + 2 * both], 0, 1)
                counts = rng.multinomial(rows, shares / shares.sum(), 2 * draws)[:, :2]
                seen, weights = np.unique(counts, axis=0, return_counts=True)
                low, high = tango_interval(seen[:, 0], seen[:, 1], rows, CONFIDENCE)
                plain = rows * min(a, b, 1 - a, 1 - b) >= 10 - 1e-9
                name = f"paired n={rows} p={a},{b} r={correlation}"
                yield Cell(name, _covered(low, high, a - b, weights), 2 * draws, plain)


def _beta(a: float, b: float) -> Callable[[np.random.Generator, tuple[int, int]], Drawn]:
    return lambda rng, shape: Drawn(rng.beta(a, b, shape), a / (a + b))


def _heaped(share: float, heap: float, a: float, b: float) -> Callable[[np.random.Generator, tuple[int, int]], Drawn]:
    """`share` of the rows score `heap`, the others a beta."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Drawn:
        values = np.where(rng.random(shape) < share, heap, rng.beta(a, b, shape))
        return Drawn(values, share * heap + (1 - share) * a / (a + b))

    return draw


GRADED = {
    "beta(2,5)": _beta(2, 5),
    "beta(0.5,0.5)": _beta(0.5, 0.5),
    "beta(0.5,6)": _beta(0.5, 6),
    "half right": _heaped(0.5, 1.0, 2, 3),
    "nearly all right": _heaped(0.93, 1.0, 2, 2),
    "mostly nothing": _heaped(0.7, 0.0, 2, 2),
    "hardly anything": _heaped(0.95, 0.0, 2, 2),
}


def _differing(share: float, up: float) -> Callable[[np.random.Generator, tuple[int, int]], Drawn]:
    """Two arms that differ in `share` of the rows, upwards in `up` of those."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Drawn:
        size = rng.beta(2, 3, shape)
        sign = np.where(rng.random(shape) < up, 1.0, -1.0)
        return Drawn(np.where(rng.random(shape) < share, sign * size, 0.0), share * (2 * up - 1) * 0.4)

    return draw


DIFFERENCES = {
    "all rows differ": _differing(1.0, 0.5),
    "all rows, to one side": _differing(1.0, 0.8),
    "a third differ": _differing(0.33, 0.6),
    "a tenth differ": _differing(0.1, 0.5),
    "a tenth, to one side": _differing(0.1, 1.0),
    "a fiftieth, to one side": _differing(0.02, 1.0),
}


_DIFFER = dict(zip(DIFFERENCES, (1, 1, 0.33, 0.1, 0.1, 0.02), strict=True))


def _graded(rng: np.random.Generator, most: int) -> Iterator[Cell]:
    for rows in ROWS:
        draws = min(most, 10_000_000 // rows)
        for name, draw in GRADED.items():
            covered, mean = _many(rng, draws, rows, draw, lambda v: mean_intervals(v, False, CONFIDENCE))
            yield Cell(f"graded n={rows} {name}", covered, draws, rows * min(mean, 1 - mean) >= 10 - 1e-9)
        for name, draw in DIFFERENCES.items():
            covered, _ = _many(rng, draws, rows, draw, lambda v: difference_intervals(v, False, CONFIDENCE))
            differ = {"a tenth": 0.1, "a fiftieth": 0.02, "a third": 0.33}.get(
                name.split(",")[0].removesuffix(" differ"), 1
            )
            yield Cell(f"graded difference n={rows} {name}", covered, draws, rows * differ >= 10 - 1e-9)


def _many(
    rng: np.random.Generator,
    draws: int,
    rows: int,
    draw: Callable[[np.random.Generator, tuple[int, int]], Drawn],
    intervals: Callable[[Floats], tuple[Floats, Floats]],
) -> tuple[float, float]:
    """Share of intervals that cover, and the true mean, drawing in pieces that fit into memory."""
    covered, left, mean = 0.0, draws, 0.0
    while left:
        some = min(left, max(1, _AT_ONCE // rows))
        drawn = draw(rng, (some, rows))
        low, high = intervals(drawn.values)
        covered, left, mean = covered + some * _covered(low, high, drawn.mean), left - some, drawn.mean
    return covered / draws, mean


def group_sizes(groups: int, rows: int, uneven: bool) -> NDArray[np.int64]:
    """Group of each row: all alike, or falling like 1 / rank."""
    weights = 1 / np.arange(1, groups + 1) ** (0.7 if uneven else 0.0)
    sizes = np.maximum(1, np.round(weights / weights.sum() * rows)).astype(int)
    return np.repeat(np.arange(groups), sizes)


def _groups(rng: np.random.Generator, draws: int) -> Iterator[Cell]:
    for groups, rows in ((15, 150), (30, 150), (30, 600), (100, 500), (300, 1_200)):
        for uneven in (False, True):
            codes = group_sizes(groups, rows, uneven)
            for within in (0.0, 0.3, 0.8):
                shape = f"groups={groups} n={len(codes)}{' uneven' if uneven else ''} within={within}"
                for accuracy in (0.2, 0.6, 0.9):
                    single, paired = _grouped_cells(rng, draws, codes, within, accuracy)
                    yield Cell(f"share {shape} p={accuracy}", single, draws, groups * min(accuracy, 1 - accuracy) >= 3)
                    yield Cell(f"paired {shape} p={accuracy}", paired, draws, groups * min(accuracy, 1 - accuracy) >= 3)

                def graded(
                    rng: np.random.Generator, size: tuple[int, int], codes: Any = codes, within: float = within
                ) -> Drawn:
                    return Drawn(norm.cdf(1.2 * _hidden(rng, size[0], codes, within)), 0.5)

                covered, _ = _many(
                    rng, draws, len(codes), graded, lambda v, codes=codes: mean_intervals(v, False, CONFIDENCE, codes)
                )  # fmt: skip
                yield Cell(f"graded {shape}", covered, draws, True)


def _hidden(rng: np.random.Generator, draws: int, codes: NDArray[np.int64], within: float) -> Floats:
    """Standard normals [draws, rows] that correlate by `within` inside a group."""
    level = rng.standard_normal((draws, int(codes.max()) + 1))[:, codes]
    return np.asarray(within**0.5 * level + (1 - within) ** 0.5 * rng.standard_normal((draws, len(codes))))


def _grouped_cells(
    rng: np.random.Generator, draws: int, codes: NDArray[np.int64], within: float, accuracy: float
) -> tuple[float, float]:
    """Coverage of one arm's accuracy, and of its lead over another arm that finds other groups hard."""
    single = paired = 0.0
    left, better = draws, min(0.99, accuracy + 0.05)
    while left:
        some = min(left, max(1, _AT_ONCE // len(codes)))
        shared = _hidden(rng, some, codes, within)
        own = (0.6**0.5 * shared + 0.4**0.5 * _hidden(rng, some, codes, within) for _ in range(2))
        a, b = ((latent < norm.ppf(p)).astype(np.float64) for latent, p in zip(own, (better, accuracy), strict=True))
        single += some * _covered(*mean_intervals(b, True, CONFIDENCE, codes), accuracy)
        paired += some * _covered(*difference_intervals(a - b, True, CONFIDENCE, codes), better - accuracy)
        left -= some
    return single / draws, paired / draws


def _seeds(rng: np.random.Generator, draws: int) -> Iterator[Cell]:
    """A trained arm's accuracy over trainings, of which two or three were seen."""
    for rows, deviation, seeds in (
        (200, 0.02, 2),
        (200, 0.02, 3),
        (1_000, 0.01, 3),
        (1_000, 0.03, 3),
        (1_000, 0.01, 5),
    ):
        covered = 0
        for _ in range(draws // 4):
            scores = rng.normal(0.8, deviation, seeds)
            right = rng.binomial(rows, np.clip(scores[0], 0, 1))
            ends = tuple(float(end) for end in share_interval(right, rows, CONFIDENCE))
            spread = SeedSpread(float(scores.std(ddof=1)), seeds - 1)
            low, high = with_seeds(right / rows, (ends[0], ends[1]), CONFIDENCE, spread)
            covered += low <= 0.8 <= high
        yield Cell(f"seeds={seeds} n={rows} spread={deviation}", covered / (draws // 4), draws // 4, False)


# --- the rule ---


class Shape(NamedTuple):
    """Arms of which none is better: how many prompts and trained ones, and what their rows are like."""

    rows: int
    prompts: int
    trained: int
    accuracy: float
    correlation: float
    graded: bool = False
    groups: int | None = None


SHAPES = (
    Shape(50, 1, 1, 0.6, 0.5), Shape(200, 1, 1, 0.9, 0.8), Shape(1_000, 1, 1, 0.7, 0.5), Shape(200, 2, 2, 0.8, 0.5),
    Shape(500, 1, 4, 0.6, 0.3), Shape(500, 4, 1, 0.6, 0.3), Shape(2_000, 2, 2, 0.95, 0.6), Shape(100, 1, 1, 0.5, 0.0),
    Shape(200, 1, 2, 0.7, 0.5, graded=True), Shape(1_000, 2, 1, 0.3, 0.7, graded=True),
    Shape(300, 1, 1, 0.7, 0.5, groups=30), Shape(600, 2, 2, 0.8, 0.5, groups=60),
)  # fmt: skip


def false_fine_tune(draws: int, say: Callable[[str], None]) -> tuple[dict[str, float], dict[str, float]]:
    """Share of verdicts "fine-tune" where no arm is better and all cost the same, and how often the intervals of all
    comparisons with the best arm cover together."""
    rng, wrong, together = np.random.default_rng(100), {}, {}
    terms = Terms(PRICE)
    for shape in SHAPES:
        kinds, covered = [], 0
        for _ in range(draws):
            judged = judge(_equal_arms(rng, shape), Decision(), terms)
            kinds.append(judged.ruling.kind)
            best = judged.evidence.best
            pairs = [pair for names, pair in judged.evidence.pairs.items() if best is not None and best.name in names]
            covered += all(pair.interval[0] <= 0 <= pair.interval[1] for pair in pairs)
        name = ", ".join(f"{key}={value}" for key, value in shape._asdict().items() if value)
        wrong[name], together[name] = kinds.count("fine-tune") / draws, covered / draws
    say(
        f"wrong fine-tune: {max(wrong.values()):.4f} at most; intervals together: {min(together.values()):.4f} at least"
    )
    return wrong, together


def _equal_arms(rng: np.random.Generator, shape: Shape, worse: float = 0.0) -> list[ArmResult]:
    """Arms of one accuracy at one cost; trained ones are worse by `worse` and then cost a tenth."""
    codes = None if shape.groups is None else group_sizes(shape.groups, shape.rows, False)
    share = shape.correlation**0.5
    hard = rng.standard_normal(shape.rows) if codes is None else _hidden(rng, 1, codes, 0.5)[0]
    arms = []
    for place in range(shape.prompts + shape.trained):
        trained = place >= shape.prompts
        own = rng.standard_normal(shape.rows) if codes is None else _hidden(rng, 1, codes, 0.5)[0]
        latent = share * hard + (1 - shape.correlation) ** 0.5 * own
        level = norm.ppf(shape.accuracy - (worse if trained else 0.0))
        scores = norm.cdf(level * 2**0.5 + latent) if shape.graded else (latent < level).astype(np.float64)
        arms.append(ArmResult(
            f"{'lora' if trained else 'prompt'}-{place}", "fine-tune" if trained else "prompt", "m", "generate",
            scores=tuple(scores.tolist()), groups=None if codes is None else tuple(map(str, codes)),
            machine_seconds_per_request=0.01 if trained and worse else 0.1, usd_to_build=0.0,
        ))  # fmt: skip
    return arms


WORSE = (
    (Shape(1_000, 1, 1, 0.9, 0.9), 0.02), (Shape(2_000, 1, 1, 0.8, 0.9), 0.03), (Shape(500, 1, 2, 0.9, 0.8), 0.05),
    (Shape(600, 1, 1, 0.8, 0.8, groups=60), 0.08),
)  # fmt: skip


def false_equivalence(draws: int, say: Callable[[str], None]) -> dict[str, float]:
    """Share of verdicts "fine-tune" where fine-tuned arms are cheaper, and worse by just what matters."""
    rng, wrong, terms = np.random.default_rng(101), {}, Terms(PRICE)
    for shape, effect in WORSE:
        decision = Decision(minimum_effect=effect)
        kinds = [judge(_equal_arms(rng, shape, effect), decision, terms).ruling.kind for _ in range(draws)]
        wrong[f"n={shape.rows} p={shape.accuracy} effect={effect} groups={shape.groups}"] = (
            kinds.count("fine-tune") / draws
        )
    say(f"worse arms taken for as good: {max(wrong.values()):.4f} at most")
    return wrong


# --- power ---


def power_errors(draws: int, say: Callable[[str], None]) -> dict[str, float]:
    """Points between 80 % and how often the smallest detectable difference, being true, is shown."""
    rng, errors = np.random.default_rng(200), {}
    for rows in ROWS:
        for discordant in (0.02, 0.05, 0.1, 0.25, 0.5):
            for alpha in (0.05, 0.05 / 3):
                difference = smallest_detectable_difference(discordant, rows, alpha, True)
                if difference is None or difference > 0.98 * discordant:
                    continue  # the share of rows that differ would have to be larger
                counts = rng.multinomial(
                    rows, [(discordant + difference) / 2, (discordant - difference) / 2, 1 - discordant], draws
                )[:, :2]  # fmt: skip
                seen, weights = np.unique(counts, axis=0, return_counts=True)
                low, _ = tango_interval(seen[:, 0], seen[:, 1], rows, 1 - alpha)
                shown = float(np.average(low > 0, weights=weights))
                errors[f"paired n={rows} differ={discordant} alpha={alpha:.3f}"] = 100 * (shown - 0.8)
        for spread in (0.05, 0.15):
            for skewed in (False, True):
                difference = smallest_detectable_difference(spread**2, rows, 0.05, False, 1.0 if skewed else 0.0)
                assert difference is not None
                errors[f"graded n={rows} spread={spread} skewed={skewed}"] = 100 * (
                    _graded_power(rng, max(500, draws // 8), rows, difference, spread, skewed) - 0.8
                )
    say(f"power: off by {np.mean(np.abs(list(errors.values()))):.2f} points on average, {_worst(errors)} at most")
    return errors


def _graded_power(
    rng: np.random.Generator, draws: int, rows: int, difference: float, spread: float, skewed: bool
) -> float:
    deviation = (spread**2 - difference**2) ** 0.5
    shown, left = 0.0, draws
    while left:
        some = min(left, max(1, _AT_ONCE // rows))
        noise = rng.gamma(4, 0.5, (some, rows)) - 2 if skewed else rng.standard_normal((some, rows))
        low, _ = difference_intervals(np.clip(difference + deviation * noise, -1, 1), False, CONFIDENCE)
        shown, left = shown + float((low > 0).sum()), left - some
    return shown / draws


def _worst(errors: dict[str, float]) -> str:
    name = max(errors, key=lambda key: abs(errors[key]))
    return f"{errors[name]:.2f} ({name})"


# --- money ---


def break_even_coverage(draws: int, say: Callable[[str], None]) -> tuple[dict[str, float], dict[str, float]]:
    """How often the interval of the break-even covers the true one: in requests, and in right answers."""
    rng, requests, right = np.random.default_rng(300), {}, {}
    terms = Terms(PRICE)
    usd_a_second = PRICE.usd_per_machine_hour / 3600
    for rows in (50, 200, 1_000):
        for shape in (1.5, 6.0):
            for saving in (0.3, 0.7):
                name = f"n={rows} shape={shape} saving={saving}"
                hits = [0, 0]
                both = joint(0.7, 0.85, 0.5)
                truth = 0.5 / (0.36 * saving * usd_a_second)
                truth_right = 0.5 / (0.36 * usd_a_second * (1 / 0.7 - (1 - saving) / 0.85))
                for _ in range(draws):
                    length = rng.gamma(shape, 1 / shape, rows)  # long requests are long in both arms
                    slow = 0.36 * length * rng.gamma(20, 1 / 20, rows)
                    fast = 0.36 * (1 - saving) * length * rng.gamma(20, 1 / 20, rows)
                    scores = _right(rng, rows, both)
                    few, tuned = (
                        ArmResult(kind, kind, "m", "generate", scores=tuple(mine), row_seconds=tuple(taken),
                                  machine_seconds_per_request=float(taken.mean()), usd_to_build=usd)  # type: ignore[arg-type]
                        for kind, mine, taken, usd in (
                            ("prompt", scores[0], slow, 0.0), ("fine-tune", scores[1], fast, 0.5))
                    )  # fmt: skip
                    crossing = break_even(tuned, few, terms, CONFIDENCE)
                    for place, (found, wanted) in enumerate(
                        ((crossing and crossing.requests, truth), (crossing and crossing.correct, truth_right))
                    ):
                        if found is not None and found.interval is not None:
                            hits[place] += found.interval[0] <= wanted <= found.interval[1]
                requests[name], right[name] = hits[0] / draws, hits[1] / draws
    say(f"break-even: requests {min(requests.values()):.4f} at least, right answers {min(right.values()):.4f}")
    return requests, right


def _right(rng: np.random.Generator, rows: int, both: float) -> tuple[Sequence[float], Sequence[float]]:
    """Right and wrong of a prompt (0.7) and a fine-tuned arm (0.85) that are both right in `both`."""
    case = rng.choice(4, rows, p=[both, 0.7 - both, 0.85 - both, 1 - 0.7 - 0.85 + both])
    return (case <= 1).astype(float).tolist(), ((case == 0) | (case == 2)).astype(float).tolist()
