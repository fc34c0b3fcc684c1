"""Inference speed: tuneworth against named peers on the same prompts, in one run.

    python benchmarks/inference.py --json                                 everything (under an hour on two cores)
    python benchmarks/inference.py --only ours --workload classification

Workloads, all greedy, SmolLM2-135M-Instruct, the same token ids for everybody:

- `classification`: BANKING77's test rows with all 77 labels in the prompt (about 670 tokens, 650 of them shared). Ours
  keeps to the labels (at most as many tokens as the longest has); peers write 8 tokens freely, which is what reading a
  label costs them at least.
- `classification_short`: the same rows, labels not in the prompt (about 40 tokens).
- `generation`: 64 prompts of 20 to 200 tokens, each to be continued for 8 to 128 tokens or to its end.
- `single_stream`: one prompt of 64 tokens after the other, 64 new tokens each.

Peers, each in an environment of its own: transformers' `generate` (the best of its settings, tried on a few prompts:
precision, attention, prompts at once) and llama.cpp through llama-cpp-python on the same weights (Q4_1 as they are
shipped, and bfloat16; one prompt after the other, what a prompt shares with the one before is kept). Peers answer fewer
prompts of the same distribution where they are slow; their speed does not depend on it. Ours computes shared
beginnings within the timed part.

`share_of_limit` is, for the classifications, the FLOPs of the decoder's linear layers for every token that has to be
computed once the shared beginning is (prompt tails), over this machine's rate of such products; for `single_stream`,
the bytes of all weights over the measured rate of reading memory. Where other processes used more than 0.15 cores
meanwhile, the measurement is said to be `disturbed`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training_speed.measuring import DISTURBED, Child, Kept, TimeIsUp
from training_speed.peers import python_of

from tuneworth.models.machine import this_machine
from tuneworth.models.sources import find_model
from tuneworth.rendering import Renderer
from tuneworth.store.cache import cache_folder

MODEL = "smollm2-135m-instruct"
WORKLOADS = ("classification", "classification_short", "generation", "single_stream")
COUNTS = {"classification": 384, "classification_short": 384, "generation": 64, "single_stream": 6}
PEER_COUNTS = {"classification": 32, "classification_short": 64, "generation": 64, "single_stream": 6}
TRIAL_COUNTS = {"classification": 8, "classification_short": 32, "generation": 24, "single_stream": 2}
LLAMA_PACKAGE = "llama-cpp-python==0.3.36"
LLAMA_FLAGS = (
    "-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON "
    "-DGGML_AVX512_BF16=ON"
)
_NEW_TOKENS = 8
_SYSTEM = "Decide which label fits the message best.\n\nLabels:\n{}\n\nAnswer with exactly one label and nothing else."
_SHORT_SYSTEM = "Reply with the label of the message."


def prompts_of(name: str, renderer: Renderer, count: int, seed: int = 0) -> dict[str, Any]:
    """Prompts, new tokens at most, and choices of a workload."""
    root = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("TUNEWORTH_SHARED_DATA", root)) / "banking77" / "test.csv"
    if not path.is_file():
        raise SystemExit(f"no {path}: set TUNEWORTH_SHARED_DATA")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chance = random.Random(seed)
    chance.shuffle(rows)
    labels = sorted({row["category"] for row in rows})
    if name.startswith("classification"):
        full = name == "classification"
        system = _SYSTEM.format("\n".join(f"- {label}" for label in labels)) if full else _SHORT_SYSTEM
        asked = [[{"role": "system", "content": system}, {"role": "user", "content": row["text"]}] for row in rows]
        prompts = [renderer.prompt(messages) for messages in asked[:count]]
        choices = [renderer.answer_ids(label) for label in labels]
        return {"prompts": prompts, "limits": [_NEW_TOKENS] * count, "choices": choices}
    words = " ".join(row["text"] for row in rows)
    ids = renderer.encode_text(words)
    prompts, limits = [], []
    for number in range(count):
        lone = name == "single_stream"
        length, limit = (64, 64) if lone else (chance.randint(20, 200), chance.randint(8, 128))
        start = chance.randrange(len(ids) - length)
        text = renderer.decode(ids[start : start + length])
        prompts.append(renderer.prompt([{"role": "user", "content": f"{number}: go on with this. {text}"}]))
        limits.append(limit)
    return {"prompts": prompts, "limits": limits, "choices": []}


class Bench:
    """The measurements in their order; each is kept as soon as it is there."""

    def __init__(self, kept: Kept, folder: Path, peers: Path, threads: int) -> None:
        self.kept = kept
        self._folder = folder
        self._peers = peers
        self._threads = threads
        self._model = find_model(MODEL)
        self._renderer = Renderer.load(self._model.path)

    def measure(self, name: str, engine: str, settings: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
        """One engine on one workload; the quieter of two runs if others disturb the first."""
        given = prompts_of(name, self._renderer, counts[name])
        warmup = [prompt[-40:] for prompt in given["prompts"][:2]]
        job = {
            **given, "warmup": warmup, "end_id": self._renderer.end_id, "one_by_one": name == "single_stream",
            "model": MODEL if engine == "ours" else str(self._model.path), "settings": dict(settings),
            "threads": self._threads,
        }  # fmt: skip
        best: dict[str, Any] = {}
        for _ in range(2):
            found = self._run(engine, job)
            if "error" in found:
                say(f"{name}: {engine} {plain(settings)}: {found['error']}")
                return found
            if not best or found["cores_used_by_others"] < best["cores_used_by_others"]:
                best = found
            if best["cores_used_by_others"] <= DISTURBED:
                break
        else:
            best["disturbed"] = True
        best.pop("answers")
        say(f"{name}: {engine} {plain(settings)}: {best['prompts_per_second']:.2f} prompts/s")
        return best | {"settings": dict(settings)}

    def peer(self, name: str, engine: str) -> dict[str, Any]:
        """A peer with the best of its settings."""
        if engine.startswith("llama_cpp"):
            gguf = self._weights() / ("q4_1.gguf" if engine == "llama_cpp" else "bf16.gguf")
            return self.measure(name, engine, {"gguf": str(gguf)}, PEER_COUNTS)
        best: dict[str, Any] = {"precision": "bfloat16", "attention": "sdpa", "batch": 16}
        sizes = (1,) if name == "single_stream" else (16, 4, 32)
        for key, values in (("precision", ("bfloat16", "float32")), ("attention", ("sdpa", "eager")), ("batch", sizes)):
            tried = {value: self._trial(name, engine, best | {key: value}) for value in values}
            best |= {key: max(values, key=lambda value: tried[value])}
        return self.kept.get(f"final/{name}/{engine}", lambda: self.measure(name, engine, best, PEER_COUNTS))

    def _trial(self, name: str, engine: str, settings: dict[str, Any]) -> float:
        key = f"trial/{name}/{engine}/{json.dumps(settings, sort_keys=True)}"
        found = self.kept.get(key, lambda: self.measure(name, engine, settings, TRIAL_COUNTS))
        return float(found.get("prompts_per_second", 0.0))

    def _run(self, engine: str, job: Mapping[str, Any]) -> dict[str, Any]:
        script = {"ours": "ours.py", "transformers": "transformers_generate.py"}.get(engine, "llama_cpp_python.py")
        common = {"GOMP_SPINCOUNT": "50000", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        child = Child(self._python(engine), f"../inference_speed/{script}", common, self._threads)
        with tempfile.TemporaryDirectory() as scratch:
            path, result = Path(scratch) / "job.json", Path(scratch) / "result.json"
            path.write_text(json.dumps({**job, "result": str(result)}), "utf-8")
            error = child.run(str(path), seconds=600)
            return {"error": error} if error is not None else dict(json.loads(result.read_text("utf-8")))

    def _python(self, engine: str) -> Path:
        if engine == "ours":
            return Path(sys.executable)
        if engine == "transformers":
            return python_of("hugging-face", self._peers, say)
        return llama_python(self._peers)

    def _weights(self) -> Path:
        folder = self._folder / "gguf"
        folder.mkdir(exist_ok=True)
        script = Path(__file__).parent / "inference_speed" / "weights.py"
        subprocess.run([sys.executable, str(script), str(folder)], check=True, stdout=subprocess.DEVNULL)
        return folder

    def limit(self) -> dict[str, Any]:
        """This machine's rates, and what they allow."""
        import torch

        from tuneworth.models.rates import matrix_rate, memory_rate

        torch.set_num_threads(self._threads)
        config = json.loads((self._model.path / "config.json").read_text("utf-8"))
        hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
        heads = config["num_key_value_heads"] / config["num_attention_heads"]
        weights = layers * int(hidden * hidden * (2 + 2 * heads) + 3 * hidden * inner)
        head = hidden * config["vocab_size"]
        flops, read = matrix_rate(torch.bfloat16, seconds=2.0), memory_rate(seconds=2.0)
        limits = {}
        for name in ("classification", "classification_short"):
            prompts = prompts_of(name, self._renderer, 384)["prompts"]
            ordered = sorted(map(tuple, prompts))
            shared = next(i for i, (a, b) in enumerate(zip(ordered[0], ordered[-1], strict=False)) if a != b)
            tokens = sum(len(prompt) - shared for prompt in prompts) / len(prompts)
            limits[name] = flops / (2 * weights * tokens)
        limits["single_stream"] = read / (2 * (weights + head)) / 64
        return {"flops_per_second": flops, "bytes_per_second": read, "prompts_per_second": limits}


def llama_python(peers: Path) -> Path:
    """The Python of llama.cpp's environment, compiled at the first call (minutes)."""
    folder = peers / "llama-cpp"
    python = folder / "bin" / "python"
    installed = (
        python.is_file()
        and not subprocess.run([str(python), "-c", "import llama_cpp"], capture_output=True, check=False).returncode
    )
    if not installed:
        say(f"compiling {LLAMA_PACKAGE} into {folder} (once, minutes)")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", LLAMA_PACKAGE],
            check=True, env=os.environ | {"CMAKE_ARGS": LLAMA_FLAGS},
        )  # fmt: skip
    return python


def report(kept: Kept, workloads: Sequence[str], peers: Sequence[str]) -> dict[str, Any]:
    """The document of `--json`."""
    found: dict[str, Any] = {"about": kept.peek("about"), "limit": kept.peek("limit")}
    for name in workloads:
        ours = kept.peek(f"final/{name}/ours") or {}
        rates = {peer: (kept.peek(f"final/{name}/{peer}") or {}).get("prompts_per_second") for peer in peers}
        rate = ours.get("prompts_per_second")
        limit = ((kept.peek("limit") or {}).get("prompts_per_second") or {}).get(name)
        found[name] = {
            "ours": rate,
            "peers": rates,
            "ratio": {peer: rate / value if rate and value else None for peer, value in rates.items()},
            "share_of_limit": rate / limit if rate and limit else None,
            "details": dict(kept.items(f"final/{name}/")),
        }
    return found


def table(found: Mapping[str, Any]) -> str:
    """The figures, readable."""
    lines = []
    for name in WORKLOADS:
        if name in found and found[name]["ours"]:
            part = found[name]
            peers = ", ".join(
                f"{peer} {value:.2f} ({part['ratio'][peer]:.1f}x)" for peer, value in part["peers"].items() if value
            )
            lines.append(f"{name}: ours {part['ours']:.2f} prompts/s; {peers}")
    return "\n".join(lines)


def plain(settings: Mapping[str, Any]) -> str:
    """Settings on one line."""
    return ", ".join(f"{key}={Path(str(value)).name}" for key, value in settings.items())


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 when something that was asked for could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    engines = ("ours", "transformers", "llama_cpp", "llama_cpp_bf16")
    parser.add_argument("--only", nargs="+", choices=engines, default=engines, help="engines")
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers-dir", type=Path, help="where the peers are installed; the cache folder when absent")
    parser.add_argument("--keep", type=Path, help="folder of what was measured: the next call goes on from there")
    parser.add_argument("--again", nargs="+", choices=engines, default=(), help="engines to measure again")
    parser.add_argument("--minutes", type=float, default=60, help="start nothing new after this time")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        kept = Kept(folder / "measured.json", time.monotonic() + 60 * given.minutes)
        for engine in given.again:
            for name in given.workload:
                kept.drop(f"final/{name}/{engine}")
        bench = Bench(kept, folder, given.peers_dir or cache_folder() / "peers", given.threads)
        machine = this_machine()
        kept.get("about", lambda: {"machine": f"{machine.processor}, {machine}", "system": machine.system})
        try:
            kept.get("limit", bench.limit)
            for name in given.workload:
                for engine in given.only:
                    if engine == "ours":
                        settings = {"precision": machine.dtype}
                        kept.get(f"final/{name}/ours", lambda n=name, s=settings: bench.measure(n, "ours", s, COUNTS))
                    else:
                        kept.get(f"final/{name}/{engine}", lambda n=name, e=engine: bench.peer(n, e))
        except TimeIsUp:
            say("the time is up; with --keep the same command goes on from here")
        found = report(kept, given.workload, [engine for engine in given.only if engine != "ours"])
    print(json.dumps(found, indent=1) if given.json else table(found))
    wanted = [kept.peek(f"final/{name}/{engine}") or {"error": ""} for name in given.workload for engine in given.only]
    return int(any("error" in part for part in wanted))


if __name__ == "__main__":
    sys.exit(main())
