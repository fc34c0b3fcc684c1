"""Do the audit's scores predict what they say? Remeasures sentence vectors, coverage, relevance and size on real data.

    python benchmarks/relevance.py [--json] [--part vectors|coverage|relevance|size] [--seeds 10]

Data: the folder in TUNEWORTH_SHARED_DATA, or ../shared/data. Every draw is seeded. About 10 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from tuneworth.data.coverage import FAR_OF_OWN, likeness_to
from tuneworth.data.plain import answers, features_of
from tuneworth.data.relevance import foreignness, off_topic
from tuneworth.data.size import learning_curve
from tuneworth.data.vectors import Vectorise, default_vectors, fitted_vectors, unit_rows

DATA = Path(os.environ.get("TUNEWORTH_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
REGIONS = 40
CLUSTERS = 30


class Set(NamedTuple):
    """Texts and labels to learn from, and others to be asked."""

    name: str
    texts: np.ndarray
    labels: np.ndarray
    asked: np.ndarray
    wanted: np.ndarray


def banking77(split: str) -> tuple[np.ndarray, np.ndarray]:
    with (DATA / "banking77" / f"{split}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return np.array([row["text"] for row in rows]), np.array([row["category"] for row in rows])


def snips(split: str) -> tuple[np.ndarray, np.ndarray]:
    folder = DATA / "snips_nlu" / "slotgated_split" / split
    texts, labels = (_lines(folder / name) for name in ("seq.in", "label"))
    return np.array(texts), np.array(labels)


def sms() -> tuple[np.ndarray, np.ndarray]:
    rows = [line.split("\t", 1) for line in _lines(DATA / "sms_spam" / "sms.tsv")]
    return np.array([text for _, text in rows]), np.array([label for label, _ in rows])


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").strip("\n").split("\n")


def sets() -> list[Set]:
    found = [Set("banking77", *banking77("train"), *banking77("test"))]
    held = [np.concatenate(pair) for pair in zip(snips("valid"), snips("test"), strict=True)]
    found.append(Set("snips", *snips("train"), *held))
    texts, labels = sms()
    order = np.random.default_rng(0).permutation(len(texts))
    learnt, asked = order[:3_500], order[3_500:]
    return [*found, Set("sms_spam", texts[learnt], labels[learnt], texts[asked], labels[asked])]


def strangers() -> dict[str, np.ndarray]:
    """Texts that do not belong to a set, by their source."""
    gsm8k = [json.loads(line)["question"] for line in _lines(DATA / "gsm8k" / "train.jsonl")]
    rows = json.loads((DATA / "openbookqa" / "train.json").read_text(encoding="utf-8"))
    openbookqa = [row["instruction"].split("question: ", 1)[1].split("\n")[0] for row in rows]
    papers = [json.loads(line)["source"] for line in _lines(DATA / "scitldr" / "train.jsonl")]
    scitldr = [sentence for sentences in papers for sentence in sentences if len(sentence) > 30]
    return {
        "gsm8k": np.array(gsm8k),
        "openbookqa": np.array(openbookqa),
        "scitldr": np.array(scitldr),
        "snips": snips("train")[0],
        "banking77": banking77("train")[0],
    }


def vectors(vectorise: Vectorise) -> list[dict[str, Any]]:
    """Nearest neighbour's label, and how well other sets' texts are told by their likeness to the fifth neighbour."""
    foreign = strangers()
    ways: dict[str, Callable[[Sequence[str]], Vectorise]] = {
        "tokens": lambda texts: vectorise,
        "tokens and own words": lambda texts: fitted_vectors(vectorise, texts),
        "own words alone (TF-IDF, SVD)": lambda texts: fitted_vectors(_nothing, texts),
    }
    rows = []
    for way, fit in ways.items():
        for found in sets():
            start = time.perf_counter()
            made = fit(found.texts)
            learnt = made(found.texts)
            seconds = time.perf_counter() - start
            asked = made(found.asked)
            few = np.random.default_rng(0).permutation(len(found.texts))[: 5 * len(set(found.labels)) + 50]
            row = {"way": way, "set": found.name, "rows_per_second": len(found.texts) / seconds}
            row["nearest"] = _nearest_label(learnt, found.labels, asked, found.wanted)
            row["nearest_of_few"] = _nearest_label(learnt[few], found.labels[few], asked, found.wanted)
            for other in foreign:
                if other != found.name:
                    stray = made(foreign[other][:400])
                    like = [np.partition(part @ learnt.T, -5, axis=1)[:, -5] for part in (asked, stray)]
                    truth = np.repeat([1, 0], [len(asked), len(stray)])
                    row[f"auroc_{other}"] = roc_auc_score(truth, np.concatenate(like))
            rows.append(row)
    return rows


def _answers(texts: Sequence[str], labels: np.ndarray, asked: Sequence[str]) -> np.ndarray:
    """Labels by TF-IDF and logistic regression: what judges the audit's scores is not made of the audit's parts."""
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=200_000, dtype=np.float32)
    model = LogisticRegression(C=30.0, solver="saga", max_iter=15, tol=1e-3, random_state=0)
    counts = words.fit_transform(texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        return model.fit(counts, labels).predict(words.transform(asked))


def _nothing(texts: Sequence[str]) -> np.ndarray:
    return np.zeros((len(texts), 1), np.float32)


def _nearest_label(learnt: np.ndarray, labels: np.ndarray, asked: np.ndarray, wanted: np.ndarray) -> float:
    return float((labels[(asked @ learnt.T).argmax(axis=1)] == wanted).mean())


def coverage(vectorise: Vectorise, seeds: int) -> list[dict[str, Any]]:
    """Regions are taken out of the training rows; is what then counts as not covered answered worse?

    Regions are clusters of character n-grams, not of the vectors that coverage is made of. The classifier is TF-IDF
    and logistic regression on the rows left.
    """
    return [_summary(found.name, [_coverage_draw(found, vectorise, seed) for seed in range(seeds)]) for found in sets()]


def _coverage_draw(found: Set, vectorise: Vectorise, seed: int) -> dict[str, float]:
    random = np.random.default_rng(seed)
    some = random.choice(len(found.texts), min(len(found.texts), 2_500), replace=False)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), sublinear_tf=True, min_df=3, max_features=20_000)
    space = TruncatedSVD(REGIONS, n_iter=2, random_state=0)
    own = unit_rows(space.fit_transform(letters.fit_transform(found.texts[some])))
    region = MiniBatchKMeans(REGIONS, random_state=seed, n_init=1).fit(own)
    of_asked = region.predict(unit_rows(space.transform(letters.transform(found.asked))))
    gone = random.choice(REGIONS, random.integers(2, REGIONS // 2), replace=False)
    left = some[~np.isin(region.labels_, gone)]
    texts, labels = found.texts[left], found.labels[left]
    right = _answers(texts, labels, found.asked) == found.wanted
    likeness, usual, asked = likeness_to(list(texts), list(found.asked), vectorise)
    far = likeness < np.quantile(usual, FAR_OF_OWN)
    groups = MiniBatchKMeans(CLUSTERS, random_state=seed, n_init=1).fit_predict(asked)
    large = [group for group in range(CLUSTERS) if (groups == group).sum() >= 10]
    means = [(likeness[groups == group].mean(), right[groups == group].mean()) for group in large]
    taken = np.isin(of_asked, gone)
    return {
        "accuracy": right.mean(),
        "accuracy_covered": right[~far].mean(),
        "accuracy_far": right[far].mean(),
        "far": far.mean(),
        "auroc_right": roc_auc_score(right, likeness),
        "auroc_region_taken": roc_auc_score(~taken, likeness),
        "spearman_clusters": spearmanr(*zip(*means, strict=True))[0],
    }


def _summary(name: str, draws: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Means with 95 % bootstrap intervals over the draws, and the rank correlation between draws."""
    random = np.random.default_rng(0)
    picks = random.integers(0, len(draws), (2_000, len(draws)))
    row: dict[str, Any] = {"set": name, "draws": len(draws)}
    for key in draws[0]:
        values = np.array([draw[key] for draw in draws])
        means = np.nanmean(values[picks], axis=1)
        row[key] = [float(np.nanmean(values)), *map(float, np.nanquantile(means, (0.025, 0.975)))]
    pairs = np.array([(draw["far"], draw["accuracy"]) for draw in draws])
    overall = [-spearmanr(*pairs[pick].T)[0] for pick in picks[:500]]
    row["spearman_draws"] = [float(-spearmanr(*pairs.T)[0]), *map(float, np.nanquantile(overall, (0.025, 0.975)))]
    return row


def relevance(vectorise: Vectorise, seeds: int) -> list[dict[str, Any]]:
    """Rows of other sets are planted with random labels of the set: are they found, and what else is?"""
    foreign = strangers()
    bases = {"banking77": banking77("train"), "snips": snips("train"), "sms_spam": sms()}
    plan = [("banking77", "gsm8k"), ("banking77", "snips"), ("snips", "openbookqa"), ("snips", "banking77")]
    plan += [("sms_spam", "scitldr"), ("sms_spam", "banking77")]
    rows = []
    for base in bases:
        for size in (1_000, 5_000):
            flagged = [_planted(bases[base], size, None, 0.0, vectorise, seed)["flagged"] for seed in range(seeds)]
            rows.append({"set": base, "rows": size, "planted": "nothing", "flagged": float(np.mean(flagged))})
    for base, other in plan:
        for share in (0.01, 0.02, 0.05):
            found = [_planted(bases[base], 5_000, foreign[other], share, vectorise, seed) for seed in range(seeds)]
            means = {key: float(np.mean([draw[key] for draw in found])) for key in found[0]}
            rows.append({"set": base, "rows": 5_000, "planted": other, "share": share, **means})
    return rows


def _planted(
    base: tuple[np.ndarray, np.ndarray], size: int, other: np.ndarray | None, share: float,
    vectorise: Vectorise, seed: int,
) -> dict[str, float]:  # fmt: skip
    random = np.random.default_rng(seed)
    some = random.permutation(len(base[0]))[:size]
    texts, labels = list(base[0][some]), list(base[1][some])
    own = len(texts)
    if other is not None:
        count = round(share * own / (1 - share))
        texts += list(random.choice(other, count, replace=False))
        labels += list(random.choice(base[1], count))
    features, rows = features_of(texts), vectorise(texts)
    scores = foreignness(features, labels, rows).scores(np.arange(len(texts)))
    flagged = np.isin(np.arange(len(texts)), off_topic(features, labels, rows))
    if other is None:
        return {"flagged": flagged.mean()}
    truth = np.arange(len(texts)) >= own
    plain = -rows @ unit_rows(rows.mean(axis=0, keepdims=True))[0]
    return {
        "flagged": flagged.mean(),
        "precision": truth[flagged].mean() if flagged.any() else float("nan"),
        "recall": flagged[truth].mean(),
        "average_precision": average_precision_score(truth, scores),
        "average_precision_centroid": average_precision_score(truth, plain),
    }


def size(seeds: int) -> list[dict[str, Any]]:
    """Does the forecast from half of a data set hold at all of it? The gain is measured on rows of their own, for the
    plain classifier that the forecast is made with, and for logistic regression."""
    rows = []
    for found in sets():
        for total in (400, 1_000, 3_000):
            draws = [_forecast(found, total, 100 + seed) for seed in range(seeds)]
            own, other, gain, low, high = np.array(draws).T
            row = {"set": found.name, "rows": total // 2, "draws": seeds, "forecast": float(gain.mean())}
            row["interval"] = [float(low.mean()), float(high.mean())]
            for judge, actual in (("plain", own), ("logistic", other)):
                row |= {f"gain_{judge}": float(actual.mean()), f"error_{judge}": float(np.abs(actual - gain).mean())}
                row[f"inside_{judge}"] = float(((low <= actual) & (actual <= high)).mean())
            rows.append(row)
    return rows


def _forecast(found: Set, total: int, seed: int) -> tuple[float, float, float, float, float]:
    some = np.random.default_rng(seed).permutation(len(found.texts))[:total]
    halves = some[: total // 2], some[total // 2 :]
    features = features_of(list(found.texts[halves[0]]))
    curve = learning_curve(features, list(found.labels[halves[0]]), total // 2, seed)
    assert curve is not None
    gains = []
    for judge in (_plain, _answers):
        whole, *parts = (
            float((judge(found.texts[part], found.labels[part], found.asked) == found.wanted).mean())
            for part in (some, *halves)
        )
        gains.append(whole - sum(parts) / 2)
    return gains[0], gains[1], curve.gain, *curve.interval


def _plain(texts: Sequence[str], labels: np.ndarray, asked: Sequence[str]) -> np.ndarray:
    names, numbers = np.unique(labels, return_inverse=True)
    learnt, rest = np.arange(len(texts)), len(texts) + np.arange(len(asked))
    known = np.concatenate([numbers, np.zeros(len(asked), numbers.dtype)])
    return names[answers(features_of([*texts, *asked]), known, learnt, rest)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--part", choices=["vectors", "coverage", "relevance", "size"], help="measure one part only")
    parser.add_argument("--seeds", type=int, default=10, help="draws of each measurement")
    chosen = parser.parse_args()
    vectorise = default_vectors()
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "vectors": lambda: vectors(vectorise),
        "coverage": lambda: coverage(vectorise, chosen.seeds),
        "relevance": lambda: relevance(vectorise, max(1, chosen.seeds // 3)),
        "size": lambda: size(chosen.seeds),
    }
    results: dict[str, Any] = {"schema": "tuneworth.benchmark-relevance/1"}
    for name, measure in parts.items():
        if chosen.part in (None, name):
            start = time.perf_counter()
            results[name] = measure()
            print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
            if not chosen.json:
                for row in results[name]:
                    print(name, json.dumps(row))
    if chosen.json:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
