"""What the audit finds of faults that were planted, how fast it is, and what others find: `python benchmarks/data.py`.

Faults of known number and place are put into banking77, snips, sms_spam and gsm8k (`--shared`, default ../shared/data),
the audit looks for them, and precision and recall are counted over rows. Private values and their look-alikes come from
`planted_private.py`, edits from `planted_edits.py`, both written from public formats and apart from the detectors.

Parts: known (flaws that the data sets are known for), exact, near, private, labels, speed (10,000 rows), scale
(1,000,000 chat rows, about 1 GB, written under `--scratch`), peers (SemHash and text-dedup, if `--peers PYTHON` names
an interpreter that has them). `--json` prints one document.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
from planted_chats import sentences, texts_of, write_chats
from planted_edits import mistyped, reworded
from planted_private import VALUES, planted, with_look_alike
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from tuneworth.data import Audit, Example, Message, audit, audit_files, normalise, open_source, read_examples
from tuneworth.data.labels import doubts
from tuneworth.data.private import private_kinds
from tuneworth.task import Columns

Part = Callable[[argparse.Namespace], Mapping[str, Any]]
SHARES = (0.05, 0.10, 0.20)
NATURAL = 0.8  # rows that are naturally this similar to another one are taken out before near duplicates are planted


def rows_of(shared: Path, name: str) -> list[tuple[str, str]]:
    """(text, answer) of the train rows of a data set."""
    if name == "banking77":
        with (shared / "banking77" / "train.csv").open(newline="") as file:
            return [(row["text"], row["category"]) for row in csv.DictReader(file)]
    if name == "snips":
        folder = shared / "snips_nlu" / "slotgated_split" / "train"
        texts, labels = ((folder / part).read_text().splitlines() for part in ("seq.in", "label"))
        return list(zip(texts, labels, strict=True))
    if name == "sms_spam":
        lines = (shared / "sms_spam" / "sms.tsv").read_text().splitlines()
        return [(text, label) for label, _, text in (line.partition("\t") for line in lines)]
    lines = (shared / "gsm8k" / "train.jsonl").read_text().splitlines()
    return [(row["question"], row["answer"]) for row in map(json.loads, lines)]


def examples_of(rows: Sequence[tuple[str, str]], file: str = "train") -> list[Example]:
    return [
        Example(f"{file}-{line}", (Message("user", text),), answer, file, line)
        for line, (text, answer) in enumerate(rows, 1)
    ]


def score(found: Collection[Any], planted_rows: Collection[Any]) -> dict[str, float | int]:
    """Precision and recall of rows; precision 1 where nothing was found."""
    hits = len(set(found) & set(planted_rows))
    return {
        "planted": len(set(planted_rows)), "found": len(set(found)),
        "precision": round(hits / len(set(found)), 4) if found else 1.0,
        "recall": round(hits / len(set(planted_rows)), 4) if planted_rows else 1.0,
    }  # fmt: skip


def found_lines(result: Audit, code: str, split: str | None = None) -> set[int]:
    return {r.line for f in result.findings if f.code == code and split in (None, f.split) for r in f.rows}


def known(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """The flaws that the READMEs of the data sets state."""
    shared: Path = arguments.shared
    train = read_examples(shared / "banking77" / "train.csv", Columns(), "auto")
    test = read_examples(shared / "banking77" / "test.csv", train.shape.columns, train.shape.kind, "test")
    banking = audit(train.examples, [], test.examples, kind="classification")
    sms = audit(examples_of(rows_of(shared, "sms_spam")), [], [], kind="classification")
    folder = shared / "snips_nlu" / "slotgated_split" / "test"
    held_out = zip(*((folder / part).read_text().splitlines() for part in ("seq.in", "label")), strict=True)
    snips = audit(examples_of(rows_of(shared, "snips")), [], examples_of(list(held_out), "test"), kind="classification")
    glaive_file = shared / "glaive_toolcall_demo" / "glaive_toolcall_en_demo.json"
    glaive = read_examples(glaive_file, Columns(), "auto")
    repeated = next(
        f for f in audit(glaive.examples, [], [], kind="tools").findings if f.code == "duplicate-exact"
    ).message
    pandalm = read_examples(shared / "pandalm_pref" / "testset-v1.json", Columns(), "auto")
    return {
        "banking77 duplicates in train (31)": banking.count("duplicate-exact", "train"),
        "banking77 duplicates in test (4)": banking.count("duplicate-exact", "test"),
        "banking77 leaks (25)": banking.count("leak-exact", "test"),
        "banking77 contradictions (2)": banking.count("contradiction"),
        "sms_spam duplicates (444)": sms.count("duplicate-exact"),
        "snips leaks (26)": snips.count("leak-exact", "test"),
        "glaive repeated rows (35)": int(repeated.split("one, ")[1].split()[0]),
        "pandalm groups (158 of the 170 have a row with a winner)": len({e.group for e in pandalm.examples}),
    }


def exact(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Repeats, leaks, contradictions, empty and odd answers, planted into rows that are all different."""
    results = {}
    for name in ("banking77", "snips", "sms_spam", "gsm8k"):
        random = Random(f"exact {name}")
        seen: dict[str, tuple[str, str]] = {}
        for text, answer in rows_of(arguments.shared, name):
            if normalise(text):
                seen.setdefault(normalise(text), (text, answer))
        base = list(seen.values())
        random.shuffle(base)
        train, test = base[: len(base) // 2], base[len(base) // 2 :]
        repeats = [(_dressed(random, text), answer) for text, answer in random.sample(train, 200)]
        leaked = [(_dressed(random, text), answer) for text, answer in random.sample(train, 100)]
        answers = sorted({answer for _, answer in base})
        contrary = [
            (text, random.choice([a for a in random.sample(answers, min(len(answers), 5)) if a != answer]))
            for text, answer in random.sample(train, 50)
        ]
        rows = [*train, *repeats, *contrary]
        result = audit(examples_of(rows), [], examples_of([*test, *leaked], "test"), kind="classification")
        first = len(train) + 1
        asked = {normalise(text) for text, _ in contrary}
        results[name] = {
            "duplicate-exact": score(found_lines(result, "duplicate-exact", "train"), range(first, len(rows) + 1)),
            "leak-exact": score(
                found_lines(result, "leak-exact", "test"), range(len(test) + 1, len(test) + len(leaked) + 1)
            ),
            "contradiction": score(
                {
                    row.line
                    for f in result.findings
                    if f.code == "contradiction"
                    for row in f.rows
                    if row.file == "train"
                },
                [line for line, (text, _) in enumerate(rows, 1) if normalise(text) in asked],
            ),
        }
    return results


def _dressed(random: Random, text: str) -> str:
    """The same text with other capitals, spaces or punctuation."""
    return random.choice([text, text.upper(), f"  {text}!", text.replace(" ", "  "), f"{text.rstrip('.?!')}."])


def near(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Edited copies among rows of which none is naturally near another: all that is found beside them is an error."""
    results = {}
    for name in ("banking77", "snips", "sms_spam", "gsm8k"):
        random = Random(f"near {name}")
        base = _without_near(list(dict.fromkeys(normalise(text) for text, _ in rows_of(arguments.shared, name)))[:6000])
        vocabulary = sorted({word for text in base for word in text.split()})
        results[name] = {"rows": len(base)}
        for share in SHARES:
            for how in ("reworded", "mistyped"):
                copied = random.sample(base, len(base) // 10)
                copies = [
                    reworded(random, text, share, vocabulary) if how == "reworded" else mistyped(random, text, share)
                    for text in copied
                ]
                rows = [(text, "x") for text in [*base, *copies]]
                result = audit(examples_of(rows), [], [], kind="reasoning")
                changed = [
                    line for line, (one, other) in enumerate(zip(copied, copies, strict=True), len(base) + 1)
                    if normalise(one) != normalise(other)
                ]  # fmt: skip
                results[name][f"{how} {share:.0%}"] = score(found_lines(result, "duplicate-near"), changed)
    return results


def _without_near(texts: Sequence[str]) -> list[str]:
    """Texts of 20 characters or more of which no two are similar, by comparing each with each."""
    long = [text for text in texts if len(text) >= 20]
    likeness = cdist(
        long, long, scorer=Levenshtein.normalized_similarity, score_cutoff=NATURAL, workers=-1, dtype=np.float32
    )
    earlier = np.tril(likeness, -1).max(axis=1)
    return [text for text, most in zip(long, earlier, strict=True) if most == 0]


def private(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """A third of the rows gets a private value, a third a look-alike; sms_spam is left out: it holds real ones."""
    results = {}
    for name in ("banking77", "snips", "gsm8k"):
        random = Random(f"private {name}")
        wanted: dict[str, set[int]] = {code: set() for code in VALUES}
        texts = []
        for line, (text, _) in enumerate(rows_of(arguments.shared, name)):
            fate = random.randrange(3)
            if fate == 0:
                code = random.choice(list(VALUES))
                wanted[code].add(line)
                text = planted(random, text, code)
            texts.append(with_look_alike(random, text) if fate == 1 else text)
        kinds = [private_kinds(text) for text in texts]
        results[name] = {
            code: score([line for line, found in enumerate(kinds) if code in found], wanted[code]) for code in VALUES
        }
    return results


def labels(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Average precision of the ranking on flipped labels, beside the out-of-fold self-confidence of a logistic
    regression (two strengths); precision and recall of the rows that are named."""
    results = {}
    for name in ("banking77", "snips", "sms_spam"):
        rows = list({normalise(text): (text, label) for text, label in rows_of(arguments.shared, name)}.values())
        names = sorted({label for _, label in rows})
        right = np.array([names.index(label) for _, label in rows])
        texts = [text for text, _ in rows]
        vectors = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2).fit_transform(texts)
        for share in SHARES:
            random = np.random.default_rng(round(1000 * share) + 7)
            wrong = np.zeros(len(rows), bool)
            wrong[random.permutation(len(rows))[: round(share * len(rows))]] = True
            given = np.where(wrong, (right + random.integers(1, len(names), len(rows))) % len(names), right)
            start = time.perf_counter()
            found = doubts([normalise(text) for text in texts], given)
            seconds = time.perf_counter() - start
            entry: dict[str, Any] = {
                "average precision": round(average_precision_score(wrong, found.doubt), 4),
                "seconds": round(seconds, 2),
                "named": score(np.flatnonzero(found.wrong).tolist(), np.flatnonzero(wrong).tolist()),
            }
            for strength in (1, 10):
                start = time.perf_counter()
                folds = StratifiedKFold(5, shuffle=True, random_state=0)
                model = LogisticRegression(C=strength, max_iter=60, tol=1e-3)
                predicted = cross_val_predict(model, vectors, given, cv=folds, method="predict_proba", n_jobs=2)
                confidence = predicted[np.arange(len(rows)), given]
                entry[f"logistic self-confidence, C={strength}"] = round(average_precision_score(wrong, -confidence), 4)
                entry[f"logistic seconds, C={strength}"] = round(time.perf_counter() - start, 1)
            results[f"{name} {share:.0%}"] = entry
    return results


def speed(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Seconds from file to audit of 10,000 rows, in a process of its own."""
    code = (
        "import sys, time; start = time.perf_counter(); from pathlib import Path\n"
        "from tuneworth.data import audit, read_examples; from tuneworth.task import Columns\n"
        "reading = read_examples(Path(sys.argv[1]), Columns(), 'auto')\n"
        "audit(reading.examples, [], [], kind=reading.shape.kind)\n"
        "print(len(reading.examples), time.perf_counter() - start)"
    )
    results = {}
    for name in ("banking77/train.csv", "gsm8k/train.jsonl"):
        command = [sys.executable, "-c", code, str(arguments.shared / name)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        results[name] = {"rows": int(out[0]), "seconds": round(float(out[1]), 2)}
    return results


class _Peak:
    """The largest memory of this process and its children together while the block runs."""

    def __enter__(self) -> _Peak:
        self.bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(0.2):
            try:
                family = [me, *me.children(recursive=True)]
                self.bytes = max(self.bytes, sum(process.memory_info().rss for process in family))
            except psutil.Error:
                continue

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def scale(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Chat rows with planted faults, from files to audit: seconds, peak memory of all processes, faults found."""
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        chats = write_chats(Path(folder), arguments.rows, sentences(list(texts_of(arguments.shared))))
        size = chats.train.stat().st_size + chats.test.stat().st_size
        code = "import sys; sys.path.insert(0, sys.argv[1]); import data; data.scale_alone(*sys.argv[2:])"
        command = [sys.executable, "-c", code, str(Path(__file__).parent), str(chats.train), str(chats.test)]
        out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        planted_counts = {code: len(rows) for code, rows in chats.lines.items() if code != "look-alike"}
        return {"rows": arguments.rows, "gigabytes": round(size / 1e9, 3), **out, "planted": planted_counts}


def scale_alone(train: str, test: str) -> None:
    """Audit two files in a fresh process, so that its memory is that of the audit; prints JSON."""
    start = time.perf_counter()
    with _Peak() as peak:
        first = open_source(Path(train), Columns(), "auto")
        second = open_source(Path(test), first.shape.columns, first.shape.kind)
        result = audit_files({"train": first, "test": second})
    counts: dict[str, int] = {}
    for finding in result.findings:
        key = finding.code if finding.code != "duplicate-exact" else f"{finding.code} in {finding.split}"
        counts[key] = counts.get(key, 0) + finding.count
    seconds = round(time.perf_counter() - start, 1)
    print(json.dumps({"seconds": seconds, "peak_gigabytes": round(peak.bytes / 1e9, 2), "found": counts}))


def peers(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Near duplicates of gsm8k and of 50,000 chat rows with our audit, text-dedup and SemHash, one after the other."""
    if arguments.peers is None:
        return {"not measured": "give --peers PYTHON, an interpreter that has semhash and text-dedup"}
    code = Path(__file__).with_name("data_peers.py")
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        chats = write_chats(Path(folder), 50_000, sentences(list(texts_of(arguments.shared))))
        start = time.perf_counter()
        result = audit_files({"train": open_source(chats.train, Columns(), "auto")})
        ours = {"seconds": round(time.perf_counter() - start, 1), **_of_planted(result, chats.lines)}
        command = [arguments.peers, str(code), str(chats.train)]
        out = subprocess.run(command, check=False, capture_output=True, text=True)
        theirs = json.loads(out.stdout) if out.returncode == 0 else {"failed": out.stderr[-400:]}
        wanted = chats.lines["duplicate-exact"] | chats.lines["duplicate-near"]
        for entry in theirs.values():
            if isinstance(entry, dict) and "lines" in entry:
                entry["recall of planted"] = round(len(wanted & set(entry.pop("lines"))) / len(wanted), 4)
        return {"tuneworth, whole audit": ours, **theirs}


def _of_planted(result: Audit, lines: Mapping[str, set[int]]) -> dict[str, Any]:
    return {
        "found": result.count("duplicate-exact") + result.count("duplicate-near"),
        "planted": len(lines["duplicate-exact"]) + len(lines["duplicate-near"]),
    }


PARTS: Mapping[str, Part] = {
    "known": known, "exact": exact, "near": near, "private": private, "labels": labels, "speed": speed,
    "scale": scale, "peers": peers,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which parts to measure; all when absent")
    parser.add_argument("--shared", type=Path, default=beside, help="the folder of the public data sets")
    parser.add_argument("--scratch", type=Path, default=None, help="where large files are written for a while")
    parser.add_argument("--rows", type=int, default=1_000_000, help="train rows of the scale part")
    parser.add_argument("--peers", default=None, help="a Python interpreter with semhash and text-dedup")
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    arguments = parser.parse_args()
    results = {}
    for name in arguments.parts or PARTS:
        start = time.perf_counter()
        results[name] = PARTS[name](arguments)
        print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
        if not arguments.json:
            print(json.dumps({name: results[name]}, indent=1))
    if arguments.json:
        print(json.dumps({"schema": "tuneworth.benchmark-data/1", **results}))


if __name__ == "__main__":
    main()
