"""Answers of real arms to all test rows of five public data sets, made once and kept outside the checkout.

Arms are cheap ones that differ in strength: classifiers of several kinds and sizes of training set, copies of the
nearest training rows, rules; of the embedded model, zero-shot and few-shot prompts where time allows. A finished run's
arms are taken over with `from_run`. What a request costs is measured or, for arms that take hardly any time, their
share of one pass.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import Pipeline, make_pipeline

from tuneworth.store.atomic import read_json, read_jsonl, write_json
from tuneworth.store.cache import cache_folder

DATA = Path(os.environ.get("TUNEWORTH_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
_rouge = RougeScorer(["rougeL"], use_stemmer=False)


class Rows(NamedTuple):
    """Inputs and answers to learn from, and those to be judged on; `wanted` holds every right answer of a row."""

    inputs: list[str]
    answers: list[str]
    asked: list[str]
    wanted: list[list[str]]


class Stored(NamedTuple):
    """One arm's scores [rows] and seconds per request, as they lie in the cache."""

    name: str
    family: str
    scores: np.ndarray
    row_seconds: np.ndarray
    build_seconds: float
    texts: list[str] | None


def folder() -> Path:
    """Where answers are kept."""
    return cache_folder() / "benchmark-answers"


def banking77() -> Rows:
    def read(split: str) -> tuple[list[str], list[str]]:
        with (DATA / "banking77" / f"{split}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [row["text"] for row in rows], [row["category"] for row in rows]

    return _labelled(*read("train"), *read("test"))


def snips() -> Rows:
    def read(split: str) -> tuple[list[str], list[str]]:
        here = DATA / "snips_nlu" / "slotgated_split" / split
        texts, labels = ((here / name).read_text("utf-8").strip("\n").split("\n") for name in ("seq.in", "label"))
        return texts, labels

    held = [a + b for a, b in zip(read("valid"), read("test"), strict=True)]
    return _labelled(*read("train"), *held)


def sms_spam() -> Rows:
    lines = (DATA / "sms_spam" / "sms.tsv").read_text("utf-8").strip("\n").split("\n")
    rows = list(dict.fromkeys(tuple(line.split("\t", 1)) for line in lines))
    order = np.random.default_rng(0).permutation(len(rows))
    learnt, asked = ([rows[row] for row in part] for part in (order[:3_000], order[3_000:]))
    return _labelled([t for _, t in learnt], [y for y, _ in learnt], [t for _, t in asked], [y for y, _ in asked])


def openbookqa() -> Rows:
    parts = []
    for split in ("train", "test"):
        rows = json.loads((DATA / "openbookqa" / f"{split}.json").read_text("utf-8"))
        parts += [[row["instruction"] for row in rows], [row["answer"] for row in rows]]
    return _labelled(*parts)


def scitldr() -> Rows:
    def read(split: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (DATA / "scitldr" / f"{split}.jsonl").open(encoding="utf-8")]

    train, test = read("train"), read("test")
    return Rows(
        ["\n".join(row["source"]) for row in train], [row["target"][0] for row in train],
        ["\n".join(row["source"]) for row in test], [row["target"] for row in test],
    )  # fmt: skip


SETS: dict[str, Callable[[], Rows]] = {
    "banking77": banking77,
    "snips": snips,
    "sms_spam": sms_spam,
    "openbookqa": openbookqa,
    "scitldr": scitldr,
}


def _labelled(inputs: Sequence[str], answers: Sequence[str], asked: Sequence[str], wanted: Sequence[str]) -> Rows:
    return Rows(list(inputs), list(answers), list(asked), [[answer] for answer in wanted])


def make_answers(names: Sequence[str], say: Callable[[str], None]) -> None:
    """Let every cheap arm answer all test rows of the sets `names`; what is there is kept."""
    for name in names:
        rows = SETS[name]()
        if name == "scitldr":
            for arm, answer in _summaries(rows).items():
                _keep(name, arm, "classical", rows, answer, say)
        elif name == "openbookqa":
            for arm, answer in _choices(rows).items():
                _keep(name, arm, "classical", rows, answer, say)
        else:
            for arm, answer in _classifiers(rows).items():
                _keep(name, arm, "classical", rows, answer, say)


def _keep(
    name: str, arm: str, family: str, rows: Rows, answer: Callable[[], list[str]], say: Callable[[str], None]
) -> None:
    path = folder() / name / f"{arm}.json"
    if path.is_file():
        return
    start = time.perf_counter()
    answers = answer()
    seconds = time.perf_counter() - start
    scores = [_score(name, text, wanted) for text, wanted in zip(answers, rows.wanted, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {
        "arm": arm, "family": family, "scores": scores, "build_seconds": seconds,
        "row_seconds": [seconds / len(answers) / 100] * len(answers), "answers": answers,
    })  # fmt: skip
    say(f"{name}: {arm} {np.mean(scores):.3f} on {len(scores):,} rows, {seconds:.0f} s")


def _score(name: str, text: str, wanted: Sequence[str]) -> float:
    if name == "scitldr":
        return max(float(_rouge.score(one, text)["rougeL"].fmeasure) for one in wanted)
    return float(text in wanted)


def _classifiers(rows: Rows) -> dict[str, Callable[[], list[str]]]:
    def fitted(model: Pipeline, share: float = 1.0) -> Callable[[], list[str]]:
        count = round(share * len(rows.inputs))
        chosen = np.random.default_rng(1).permutation(len(rows.inputs))[:count]

        def answer() -> list[str]:
            model.fit([rows.inputs[row] for row in chosen], [rows.answers[row] for row in chosen])
            return [str(label) for label in model.predict(rows.asked)]

        return answer

    def words() -> TfidfVectorizer:
        return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), dtype=np.float32)

    def letters() -> TfidfVectorizer:
        return TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=40_000, dtype=np.float32)

    def svm() -> SGDClassifier:
        return SGDClassifier(alpha=3e-6, random_state=0)

    arms = {
        "most-frequent": lambda: [Counter(rows.answers).most_common(1)[0][0]] * len(rows.asked),
        "bayes": fitted(make_pipeline(CountVectorizer(), MultinomialNB(alpha=0.1))),
        "bayes-pairs": fitted(make_pipeline(CountVectorizer(ngram_range=(1, 2)), MultinomialNB(alpha=0.05))),
        "nearest-row": fitted(make_pipeline(words(), KNeighborsClassifier(1, metric="cosine"))),
        "nearest-5": fitted(make_pipeline(words(), KNeighborsClassifier(5, metric="cosine", weights="distance"))),
        "centroid": fitted(make_pipeline(words(), NearestCentroid())),
        "svm-words": fitted(make_pipeline(words(), svm())),
        "svm-letters": fitted(make_pipeline(letters(), svm())),
        "logistic": fitted(make_pipeline(words(), LogisticRegression(C=10.0, max_iter=60, tol=1e-3))),
    }
    for share in (0.5, 0.25, 0.1, 0.04):
        arms[f"svm-letters-{share:g}"] = fitted(make_pipeline(letters(), svm()), share)
    return arms


def _choices(rows: Rows) -> dict[str, Callable[[], list[str]]]:
    """Rules for multiple choice: each option gets a number, and the highest is the answer."""
    cut = [_parts(text) for text in rows.asked]
    taught = [_parts(text) for text in rows.inputs]
    facts = [f"{q} {options[int(answer[-1]) - 1]}" for (q, options), answer in zip(taught, rows.answers, strict=True)]

    def by(value: Callable[[str, list[str]], Sequence[float]]) -> Callable[[], list[str]]:
        return lambda: [f"answer{int(np.argmax(value(question, options))) + 1}" for question, options in cut]

    def nearest(width: tuple[int, int], analyzer: str) -> Callable[[], list[str]]:
        def answer() -> list[str]:
            vectors = TfidfVectorizer(sublinear_tf=True, ngram_range=width, analyzer=analyzer, dtype=np.float32)
            known = vectors.fit_transform(facts)
            asked = vectors.transform([f"{question} {option}" for question, options in cut for option in options])
            likeness = np.asarray((asked @ known.T).max(axis=1).todense()).reshape(-1, 4)
            return [f"answer{place + 1}" for place in likeness.argmax(axis=1)]

        return answer

    def chosen_words() -> list[str]:
        good = Counter(word for fact in facts for word in fact.lower().split())
        bad = Counter(word for _, options in taught for option in options for word in option.lower().split())
        ratio = {word: np.log((good[word] + 1) / (bad[word] + 3)) for word in bad}
        return by(lambda _, options: [np.mean([ratio.get(w, 0) for w in o.lower().split()] or [0]) for o in options])()

    return {
        "first": by(lambda _, options: [1, 0, 0, 0]),
        "longest": by(lambda _, options: [len(option) for option in options]),
        "shortest": by(lambda _, options: [-len(option) for option in options]),
        "overlap": by(lambda q, options: [len({*q.lower().split()} & {*o.lower().split()}) for o in options]),
        "least-overlap": by(lambda q, options: [-len({*q.lower().split()} & {*o.lower().split()}) for o in options]),
        "nearest-fact": nearest((1, 2), "word"),
        "nearest-fact-letters": nearest((3, 5), "char_wb"),
        "chosen-words": chosen_words,
    }


def _parts(text: str) -> tuple[str, list[str]]:
    """Question and the four options of a row."""
    body = text.split("question: ", 1)[1].rsplit("\n\nAnswer format", 1)[0]
    options = []
    for number in (4, 3, 2, 1):
        body, _, option = body.rpartition(f"Answer{number}:")
        options.append(option.strip())
    return body.strip(), options[::-1]


def _summaries(rows: Rows) -> dict[str, Callable[[], list[str]]]:
    sentences = [text.split("\n") for text in rows.asked]

    def central(width: tuple[int, int]) -> Callable[[], list[str]]:
        def answer() -> list[str]:
            vectors = TfidfVectorizer(sublinear_tf=True, ngram_range=width, dtype=np.float32).fit(rows.inputs)
            found = []
            for parts in sentences:
                matrix = vectors.transform(parts)
                centre = np.asarray(matrix.mean(axis=0)).ravel()
                found.append(parts[int(np.asarray(matrix @ centre).argmax())])
            return found

        return answer

    def copied() -> list[str]:
        vectors = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), dtype=np.float32)
        known = vectors.fit_transform(rows.inputs)
        nearest = np.asarray((vectors.transform(rows.asked) @ known.T).argmax(axis=1)).ravel()
        return [rows.answers[row] for row in nearest]

    def we_sentence() -> list[str]:
        found = []
        for parts in sentences:
            ours = [p for p in parts if any(w in p.lower().split()[:4] for w in ("we", "this", "our"))]
            found.append((ours or parts)[0])
        return found

    return {
        "first": lambda: [parts[0] for parts in sentences],
        "last": lambda: [parts[-1] for parts in sentences],
        "second": lambda: [parts[min(1, len(parts) - 1)] for parts in sentences],
        "longest": lambda: [max(parts, key=len) for parts in sentences],
        "shortest": lambda: [min(parts, key=len) for parts in sentences],
        "central-words": central((1, 1)),
        "central-pairs": central((1, 2)),
        "first-we": we_sentence,
        "last-we": lambda: [([p for p in s if " we " in f" {p.lower()} "] or s)[-1] for s in sentences],
        "first-two": lambda: [" ".join(parts[:2]) for parts in sentences],
        "nearest-row": copied,
        "everything": lambda: [" ".join(parts) for parts in sentences],
    }


def from_run(name: str, run: Path, say: Callable[[str], None]) -> None:
    """Take over the finished arms of a run folder as the set `name`."""
    for record in sorted(run.glob("arms/*/arm.json")):
        arm = read_json(record)
        if arm["status"] != "done":
            continue
        rows = read_jsonl(record.parent / "answers.jsonl")
        path = folder() / name / f"{arm['name']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {
            "arm": arm["name"], "family": arm["family"], "scores": [row["score"] for row in rows],
            "row_seconds": [row["seconds"] for row in rows], "build_seconds": arm["build_seconds"], "answers": None,
        })  # fmt: skip
        say(f"{name}: {arm['name']} {np.mean([row['score'] for row in rows]):.3f} on {len(rows):,} rows")


def stored() -> dict[str, list[Stored]]:
    """What is in the cache: arms by set; arms of one set answered the same rows."""
    found: dict[str, list[Stored]] = {}
    for path in sorted(folder().glob("*/*.json")):
        arm = read_json(path)
        scores, seconds = (np.array(arm[key], dtype=np.float64) for key in ("scores", "row_seconds"))
        kept = Stored(arm["arm"], arm["family"], scores, seconds, arm["build_seconds"], arm["answers"])
        found.setdefault(path.parent.name, []).append(kept)
    return found
