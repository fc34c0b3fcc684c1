"""Does the learning curve forecast? From half of the rows, the score after all of them, for plain arms on real data.

Each try draws which rows there are, trains at an eighth, a quarter, half and all of one half of them, one training a
point, and forecasts the score after all of them, measured on the same rows that judged the points.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline
from verdict_checks.answers import DATA, SETS, Rows

from tuneworth.decision.curve import fitted_curve, score_band
from tuneworth.decision.probes import CurvePoint, LearningCurve
from tuneworth.decision.records import ArmResult, Price, Terms
from tuneworth.decision.statistics import mean_interval
from tuneworth.decision.verdict import judge
from tuneworth.task import Decision

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
NAMES = ("banking77", "snips", "sms_spam")
_JUDGING = 400  # rows that judge, as many as a run's validation or a small test set would have


def _models() -> dict[str, Callable[[], Pipeline]]:
    words = {"sublinear_tf": True, "ngram_range": (1, 2), "dtype": np.float32}
    letters = {"analyzer": "char_wb", "ngram_range": (2, 4), "max_features": 30_000, "dtype": np.float32}
    return {
        "bayes": lambda: make_pipeline(CountVectorizer(), MultinomialNB(alpha=0.1)),
        "svm-words": lambda: make_pipeline(TfidfVectorizer(**words), SGDClassifier(alpha=3e-6, random_state=0)),
        "svm-letters": lambda: make_pipeline(TfidfVectorizer(**letters), SGDClassifier(alpha=3e-6, random_state=0)),
    }


def check_curves(draws: int, say: Callable[[str], None], seed: int = 500) -> dict[str, Any]:
    """Share of tries in the band, and the median width of the band in points."""
    rng, tries = np.random.default_rng(seed), []
    for name in NAMES:
        rows = SETS[name]()
        for model_name, model in _models().items():
            for draw in range(draws):
                share = (1.0, 0.4, 0.15)[draw % 3]  # large and small sets
                tries.append({"set": name, "model": model_name, **_try(rows, model, share, rng)})
    inside = [one["low"] <= one["score"] <= one["high"] for one in tries]
    widths = [100 * (one["high"] - one["low"]) for one in tries]
    answer = {
        "tries": len(tries),
        "curve_in_band": float(np.mean(inside)),
        "curve_band_width": float(np.median(widths)),
        "curve_widest_band": float(np.max(widths)),
        "curve_off_by": float(np.median([100 * abs(one["score"] - (one["low"] + one["high"]) / 2) for one in tries])),
    }
    say(f"curves: {answer}")
    for one, good in zip(tries, inside, strict=True):
        if not good:
            say(f"  outside: {one}")
    return answer


def _try(rows: Rows, model: Callable[[], Pipeline], share: float, rng: np.random.Generator) -> dict[str, Any]:
    order = rng.permutation(len(rows.inputs))[: max(320, round(share * len(rows.inputs)))]
    asked = rng.permutation(len(rows.asked))[:_JUDGING]
    points = []
    for part in SHARES:
        taken = order[: max(16, round(part * len(order)))]
        fitted = model().fit([rows.inputs[row] for row in taken], [rows.answers[row] for row in taken])
        answers = fitted.predict([rows.asked[row] for row in asked])
        right = np.array([answer == rows.wanted[row][0] for answer, row in zip(answers, asked, strict=True)], float)
        points.append(CurvePoint(len(taken), float(right.mean()), mean_interval(right, True, 0.95)))
    low, high = score_band(points[:-1], points[-1].rows)
    return {
        "rows": points[-1].rows,
        "points": [p.score for p in points],
        "score": points[-1].score,
        "low": low,
        "high": high,
    }


def available() -> bool:
    """Whether the data sets are on this machine."""
    return (DATA / "banking77").is_dir()


def more_data_kind() -> str:
    """The verdict on a tenth of banking77 when 75 % are required: a classifier plays the fine-tuned arm, and the most
    frequent label a prompt."""
    rows, rng = SETS["banking77"](), np.random.default_rng(600)
    order = rng.permutation(len(rows.inputs))[: len(rows.inputs) // 10]
    model, points = _models()["svm-letters"], []
    wanted = np.array([one[0] for one in rows.wanted])
    for part in (1 / 8, 1 / 4, 1 / 2, 1.0):
        taken = order[: round(part * len(order))]
        fitted = model().fit([rows.inputs[row] for row in taken], [rows.answers[row] for row in taken])
        right = (fitted.predict(rows.asked) == wanted).astype(float)
        points.append(CurvePoint(len(taken), float(right.mean()), mean_interval(right, True, 0.95)))
    curve = fitted_curve(LearningCurve(tuple(points), "tuned"), 0.01)
    arms = [
        ArmResult("tuned", "fine-tune", "m", "generate", scores=tuple(right.tolist()), machine_seconds_per_request=0.02,
                  usd_to_build=1.0),
        ArmResult("prompt", "prompt", "m", "generate", scores=tuple((wanted == wanted[0]).astype(float).tolist()),
                  machine_seconds_per_request=0.02, usd_to_build=0.0),
    ]  # fmt: skip
    terms = Terms(Price(0.1, "task", None, ""))
    return judge(arms, Decision(required_score=0.75), terms, learning_curve=curve).ruling.kind
