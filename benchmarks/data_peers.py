"""Near duplicates by SemHash and text-dedup, run by the interpreter that has them: `python data_peers.py FILE`.

FILE holds chat rows, one a line; the user's texts are compared. SemHash wants a sentence encoder, by default one from
the Hugging Face hub; here it gets random projections of hashed words, which is what can be had offline. So its speed
counts, with an encoder that costs next to nothing, and its recall does not say what a real encoder would find.
Prints JSON: seconds and, by line, what was found to be a duplicate of something earlier.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def semhash(texts: Sequence[str]) -> dict[str, Any]:
    """SemHash with its own defaults but for the encoder."""
    from semhash import SemHash

    class Words:
        def encode(self, sentences: Sequence[str], **more: Any) -> np.ndarray:
            rows = np.zeros((len(sentences), 256), np.float32)
            for row, sentence in enumerate(sentences):
                for word in str(sentence).lower().split():
                    rows[row] += self.vector(word)
            return rows

        def __init__(self) -> None:
            self.known: dict[str, np.ndarray] = {}

        def vector(self, word: str) -> np.ndarray:
            if word not in self.known:
                seed = int.from_bytes(word.encode()[:8], "little") + len(word)
                self.known[word] = np.random.default_rng(seed).standard_normal(256).astype(np.float32)
            return self.known[word]

    start = time.perf_counter()
    records = [{"text": text, "line": str(line)} for line, text in enumerate(texts, 1)]
    index = SemHash.from_records(records, columns=["text"], model=Words())
    result = index.self_deduplicate()
    kept = {int(record["line"]) for record in result.selected}
    seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 1), "lines": [n for n in range(1, len(texts) + 1) if n not in kept]}


def text_dedup(texts: Sequence[str]) -> dict[str, Any]:
    """text-dedup's MinHash with 126 permutations, word 5-grams and a threshold of 0.5, on two processes."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        data.write_text("".join(json.dumps({"text": t, "line": n}) + "\n" for n, t in enumerate(texts, 1)))
        command = [sys.executable, "-m", "text_dedup.minhash", "--path", "json", "--data_files", str(data)]
        command += [
            "--split",
            "train",
            "--column",
            "text",
            "--output",
            f"{folder}/out",
            "--cache_dir",
            f"{folder}/cache",
        ]
        command += ["--num_perm", "126", "--threshold", "0.5", "--ngram", "5", "--min_length", "1", "--num_proc", "2"]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.perf_counter() - start
        from datasets import load_from_disk

        kept = set(load_from_disk(f"{folder}/out")["line"])
        return {"seconds": round(seconds, 1), "lines": [n for n in range(1, len(texts) + 1) if n not in kept]}


def main() -> None:
    rows = map(json.loads, Path(sys.argv[1]).read_text().splitlines())
    texts = [next(m["content"] for m in row["messages"] if m["role"] == "user") for row in rows]
    peers: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {"semhash": semhash, "text-dedup": text_dedup}
    results = {}
    for name, run in peers.items():
        try:
            results[name] = run(texts)
        except subprocess.CalledProcessError as error:
            results[name] = {"failed": error.stderr.decode()[-400:]}
        except Exception as error:
            results[name] = {"failed": f"{type(error).__name__}: {error}"[:400]}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
