"""Training speed: tuneworth against named peers on the same rows, in one run.

    python benchmarks/training.py --json                      everything (under an hour on two cores)
    python benchmarks/training.py --only ours --workload short --steps 10     the daily measuring stick

Everybody trains the same LoRA adapter (rank 16, alpha 32, every linear layer but the head, the same first weights)
on the same token ids and labels with AdamW (no weight decay), learning rate 2e-3 falling linearly to 0, 32 rows a
step. The rows are BANKING77's (a stand-in of the same lengths where they are not on this machine) in two prompt
forms: `short`, and `shared_prefix`, which states all labels in every row.

Peers are installed in environments of their own. Each is first tried with its settings, one axis after the other
(precision, attention, rows a forward pass, padding or packing, compiled or not), and measured with the best of them.
A setting whose first loss is not that of the others is wrong (rows that see each other), and does not count.

What the figures mean:
- rows per second: timed rows over the time from the end of the last untimed step to the end of the last step. On
  `shared_prefix` a peer's step has 8 rows instead of 32, so that it ends today; a peer's speed does not depend on it.
- share_of_limit: FLOPs of the frozen linear layers but the head, forward and gradient of their input, for every token
  of every row, at the rows per second, over this machine's rate for the same products at 2,048 tokens (bfloat16 or
  float32, whichever is faster), measured in the same run. Where rows share a prefix that is computed once, it may pass
  1; share_of_limit_computed counts only the tokens that were computed.
- final_loss: loss of the adapters trained on `short`, on rows that nobody trained on, judged by transformers and peft
  in float32. Ours must not be above the worst peer's by more than 0.02: if it is, the exit code is 1.
- peak_bytes: the most memory that the process had resident, the Python interpreter and libraries counted.
- startup_seconds: of ours, with empty caches and with filled ones.

With --keep FOLDER a run that was stopped goes on where it was, and `--again ours` measures only ours anew beside the
peers' figures that are there.

With --device cuda the same runs on a GPU; that has not been tried.
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from training_speed.measuring import Kept, TimeIsUp, children, measure
from training_speed.peers import PEERS, Settings, Trial, python_of, search
from training_speed.reporting import final_name, judged_name, report, table, trial_name
from training_speed.workloads import FORMS, SEED, find_source, make_workload, write_rows

from tuneworth.errors import TuneworthError
from tuneworth.models.adapters import add_lora, save_adapter
from tuneworth.models.loading import load_model
from tuneworth.models.machine import this_machine
from tuneworth.models.sources import ModelFolder, find_model
from tuneworth.rendering import Renderer
from tuneworth.store.cache import cache_folder

MODEL = "smollm2-135m-instruct"
BATCH_ROWS, PEER_ROWS = 32, {"short": 32, "shared_prefix": 8}
STEPS = {"short": 16, "shared_prefix": 5}
PEER_STEPS = {"short": 16, "shared_prefix": 3}
QUICK_STEPS = {"short": 10, "short.peers": 6, "shared_prefix": 3, "shared_prefix.peers": 2}
TRIAL_ROWS, TRIAL_STEPS = {"short": 32, "shared_prefix": 4}, {"short": 2, "shared_prefix": 2}
WARMUP = {"short": 2, "shared_prefix": 1}
EVALUATION_ROWS = 64
_FIRST_LOSS_TOLERANCE = 0.02
_PEER_SECONDS, _TRIAL_SECONDS = 240.0, 40.0


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line asked for."""

    engines: tuple[str, ...]
    workloads: tuple[str, ...]
    steps: int | None
    device: str
    threads: int
    quick: bool

    @property
    def all_steps(self) -> dict[str, int]:
        """Optimiser steps of the measured runs: of ours by workload, of the peers' by workload and `.peers`."""
        usual = STEPS | {f"{name}.peers": steps for name, steps in PEER_STEPS.items()}
        return {name: self.steps or (QUICK_STEPS if self.quick else usual)[name] for name in usual}


class Bench:
    """The measurements in their order; each is kept as soon as it is there."""

    def __init__(self, choice: Choice, kept: Kept, folder: Path, peers_dir: Path) -> None:
        self.choice = choice
        self.kept = kept
        self.folder = folder
        self._child = children(folder, lambda name: python_of(name, peers_dir, say), choice.device, choice.threads)
        self._model: ModelFolder | None = None
        self._files: dict[str, Path] = {}

    def run(self) -> None:
        """Measure what is not kept yet. Raises TimeIsUp."""
        self.kept.get("about", about)
        self.kept.get("limit", self._limit)
        for workload in self.choice.workloads:
            self._prepare(workload)
            for engine in self.choice.engines:
                if engine == "ours":
                    self._final(workload, engine, partial(self._ours, workload))
                else:
                    self._peer(workload, engine)
        if "ours" in self.choice.engines and not self.choice.quick:
            self.kept.get("startup", self._startup)
        if "short" in self.choice.workloads and len(self.choice.engines) > 1:
            self.kept.get(judged_name(self.choice.engines, self.choice.all_steps), self._judge)

    def _final(self, workload: str, engine: str, measured: Callable[[], dict[str, Any]]) -> None:
        self.kept.get(final_name(workload, engine, self.choice.all_steps), measured)

    def _prepare(self, workload: str) -> None:
        """Write the rows, and the adapter that everybody starts from."""
        if self._model is None:
            self._model = find_model(MODEL)
        source, renderer = find_source(), Renderer.load(self._model.path)
        for name, rows in ((workload, BATCH_ROWS), (f"{workload}.peers", PEER_ROWS[workload])):
            steps = self.choice.all_steps[name]
            made = make_workload(
                workload, source, renderer, steps=steps, batch_rows=rows, evaluation_rows=EVALUATION_ROWS
            )
            self._files[name] = self.folder / f"{name}.json"
            write_rows(made, self._files[name])
            facts = {"source": made.source, "tokens_a_row": made.tokens_a_row, "steps": steps, "batch_rows": rows}
            self.kept.put(f"rows/{name}", facts)
        if not (self.folder / "adapter").is_dir():
            model = load_model(self._model, dtype=this_machine().dtype, device="cpu")
            first = add_lora(model, rank=16, alpha=32, seed=SEED)
            save_adapter(first, self.folder / "adapter", str(self._model.path))

    def _job(self, workload: str, **changes: Any) -> dict[str, Any]:
        name = workload.removesuffix(".peers")
        steps = self.choice.all_steps[workload]
        assert self._model is not None
        return {
            "rows": str(self._files[workload]), "model": str(self._model.path), "adapter": str(self.folder / "adapter"),
            "save": None, "device": self.choice.device, "threads": self.choice.threads, "steps": steps,
            "warmup_steps": min(WARMUP[name], steps - 1), "learning_rate": 2e-3, "clip_norm": 1.0, "seed": SEED,
            "batch_rows": PEER_ROWS[name] if workload.endswith(".peers") else BATCH_ROWS,
            "maximum_seconds": _PEER_SECONDS, "settings": {}, **changes,
        }  # fmt: skip

    def _ours(self, workload: str) -> dict[str, Any]:
        say(f"{workload}: ours")
        job = self._job(workload, save=self._saved(workload, "ours"), maximum_seconds=1e9)
        return self._told(measure(self._child("ours.py", "ours"), job, say))

    def _peer(self, workload: str, name: str) -> None:
        """Find the peer's best settings in short trials, then measure it with them."""
        peer, steps = PEERS[name], self.choice.all_steps
        child = self._child(peer.script, peer.environment)

        def trial(settings: Settings) -> Trial:
            key = trial_name(workload, name, steps) + json.dumps(settings, sort_keys=True)
            found = self.kept.get(key, lambda: self._trial(workload, name, settings))
            return self._judged_trial(workload, settings, found)

        start, axes = peer.at(workload)
        best = start if self.choice.quick else search(start, axes, trial)[0]

        def final() -> dict[str, Any]:
            if best is None:
                return {"error": "none of its settings worked", "settings": None}
            say(f"{workload}: {name} with its best settings, {plain(best)}")
            job = self._job(f"{workload}.peers", settings=best, save=self._saved(workload, name))
            return self._told(measure(child, job, say)) | {"settings": best}

        self._final(workload, name, final)

    def _trial(self, workload: str, name: str, settings: Settings) -> dict[str, Any]:
        peer, rows = PEERS[name], TRIAL_ROWS[workload]
        job = self._job(
            f"{workload}.peers", settings=settings, batch_rows=rows,
            steps=min(TRIAL_STEPS[workload], self.choice.all_steps[f"{workload}.peers"]), warmup_steps=1,
            maximum_seconds=_TRIAL_SECONDS,
        )  # fmt: skip
        say(f"{workload}: {name} tries {plain(settings)}")
        return self._told(measure(self._child(peer.script, peer.environment), job, say, seconds=150, attempts=1))

    def _judged_trial(self, workload: str, settings: Settings, found: Mapping[str, Any]) -> Trial:
        """A trial counts if its first loss is that of the first trial on this workload (same weights, same rows)."""
        if "error" in found:
            return Trial(settings, None, found["error"])
        first = found["losses"][0]
        reference = self.kept.get(
            f"first-loss/{workload}/{self.choice.all_steps[f'{workload}.peers']} steps", lambda: first
        )
        if abs(first - reference) > _FIRST_LOSS_TOLERANCE * reference:
            return Trial(settings, None, f"its first loss is {first:.3f}, the others' {reference:.3f}")
        return Trial(settings, found["rows_per_second"])

    def _startup(self) -> dict[str, Any]:
        """Of ours with empty caches (a folder that is thrown away), and once more with what that left."""
        found = {}
        with tempfile.TemporaryDirectory() as caches:
            child = children(Path(caches), lambda name: Path(name), self.choice.device, self.choice.threads)
            for name in ("cold", "warm"):
                say(f"start-up of ours, {name} caches")
                # Only a first try finds caches empty.
                attempts = 1 if name == "cold" else 2
                job = self._job("short", steps=3, warmup_steps=2)
                result = measure(child("ours.py", "ours"), job, say, attempts=attempts)
                if "error" in result:
                    raise SystemExit(f"ours did not start: {result['error']}")
                found[name] = {
                    **result["startup_seconds"],
                    "first_step": result["step_seconds"][0],
                    "later_step": result["step_seconds"][-1],
                }
        return found

    def _judge(self) -> dict[str, Any]:
        """Evaluation losses of all adapters trained on `short`."""
        folders = {name: self.folder / f"trained-{name}" for name in self.choice.engines}
        task: dict[str, Any] = {
            "rows": str(self._files["short"]), "model": str(self._model.path) if self._model else "",
            "threads": self.choice.threads, "device": self.choice.device, "result": str(self.folder / "judged.json"),
            "adapters": {name: str(folder) for name, folder in folders.items() if folder.is_dir()},
        }  # fmt: skip
        path = self.folder / "judge.json"
        path.write_text(json.dumps(task), "utf-8")
        say(f"judging the adapters of {', '.join(task['adapters'])}")
        error = self._child("judge.py", "hugging-face").run(str(path), seconds=900)
        if error is not None:
            raise SystemExit(f"the adapters could not be judged: {error}")
        return dict(json.loads(Path(task["result"]).read_text("utf-8")))

    def _limit(self) -> dict[str, Any]:
        if self._model is None:
            self._model = find_model(MODEL)
        say("the limit: this machine's rate for the model's own matrix products")
        path = self.folder / "limit.json"
        arguments = (str(self._model.path), self.choice.device, str(self.choice.threads), str(path))
        error = self._child("limit.py", "ours").run(*arguments, seconds=300)
        if error is not None:
            raise SystemExit(f"the limit could not be measured: {error}")
        return dict(json.loads(path.read_text("utf-8")))

    def _saved(self, workload: str, name: str) -> str | None:
        return str(self.folder / f"trained-{name}") if workload == "short" else None

    def _told(self, found: dict[str, Any]) -> dict[str, Any]:
        say(f"  {found['error']}" if "error" in found else f"  {found['rows_per_second']:.2f} rows/s")
        return found | {"finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}


def about() -> dict[str, Any]:
    """The machine, and when this began."""
    machine = this_machine()
    return {
        "machine": f"{machine.processor}, {machine}",
        "features": list(machine.features),
        "system": machine.system,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def plain(settings: Mapping[str, Any]) -> str:
    """Settings on one line."""
    return ", ".join(f"{key}={value}" for key, value in settings.items() if key != "trainer")


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    engines = ("ours", *PEERS)

    def names_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
        def names(text: str) -> tuple[str, ...]:
            found = tuple(filter(None, text.split(",")))
            if unknown := sorted({*found} - {*known}):
                raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
            return found

        return names

    add = parser.add_argument
    add("--only", type=names_of(engines), default=engines, help=f"engines, by comma: {', '.join(engines)}")
    add("--workload", type=names_of(tuple(FORMS)), default=tuple(FORMS), help=f"by comma: {', '.join(FORMS)}")
    add("--steps", type=int, help="optimiser steps of the measured runs instead of the usual")
    add("--quick", action="store_true", help="fewer steps, peers with the settings known to be best, no start-up times")
    add("--device", default="cpu", choices=("cpu", "cuda"))
    add("--threads", type=int, default=2)
    add("--peers-dir", type=Path, help="where the peers are installed; the cache folder when absent")
    add("--keep", type=Path, help="folder of what was measured: the next call goes on from there")
    add("--again", type=names_of(engines), default=(), help="engines to measure again although --keep has them")
    add("--minutes", type=float, default=1e6, help="start nothing new after this time (with --keep)")
    add("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not this_machine().gpus:
        parser.error("--device cuda: this machine has no GPU that torch can use")
    if given.steps is not None and given.steps < 2:
        parser.error("--steps must be 2 or more: the first is not timed")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 if there is a problem (our loss above the peers', our run failed, others disturbed); 2 for wrong options."""
    given = read_arguments(arguments)
    choice = Choice(given.only, given.workload, given.steps, given.device, given.threads, given.quick)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        kept = Kept(folder / "measured.json", time.monotonic() + 60 * given.minutes)
        for engine in given.again:
            for workload in choice.workloads:
                kept.drop(f"final/{workload}/{engine}/")
            kept.drop("judged/")
            kept.drop("startup")
        bench = Bench(choice, kept, folder, given.peers_dir or cache_folder() / "peers")
        try:
            bench.run()
        except TimeIsUp:
            say("the time is up; the same command goes on from here")
        found = report(kept, choice.engines, choice.workloads, choice.all_steps)
    print(json.dumps(found, indent=1) if given.json else table(found))
    for problem in found["problems"]:
        say(f"PROBLEM: {problem}")
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the running child is ended too
    try:
        sys.exit(main())
    except TuneworthError as error_:
        say(str(error_))
        sys.exit(error_.exit_code)
