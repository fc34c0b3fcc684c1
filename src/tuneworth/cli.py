"""The command line: one function per command, and the only place that prints.

Results go to stdout, progress and logs to stderr; `--json` prints one JSON document on stdout.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from tuneworth import cli_choice
from tuneworth.cli_data import data_app
from tuneworth.errors import InputError, Interrupted, MachineError, TuneworthError, is_out_of_memory
from tuneworth.store.atomic import read_json
from tuneworth.store.run import RunFolder, read_arm
from tuneworth.task import known_keys, load_task

if TYPE_CHECKING:
    from tuneworth.evaluation.watching import Watcher

app = typer.Typer(
    name="tuneworth",
    help="Should you fine-tune? Measured on your own data, and then done for you.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data_app, name="data")
cli_choice.add_to(app)
_KEYS = known_keys()
_DATA_STAGES, _ARM_STAGES = ("audit", "split"), ("baseline", "train", "evaluate")


def _help(key: str) -> str:
    return str(_KEYS[key].description)


Data = Annotated[Path, typer.Argument(help="a data file, a registered set (NAME@VERSION) or a run folder")]
OptionalData = Annotated[Path | None, typer.Argument(help="as for audit; or name the data in the task file")]
TaskFile = Annotated[Path | None, typer.Option("--task", help="a task file; `tuneworth init DATA` writes one")]
Test = Annotated[Path | None, typer.Option("--test", help=_help("data.test"))]
Budget = Annotated[str | None, typer.Option("--budget", help=_help("budget"))]
Model = Annotated[str | None, typer.Option("--model", help=_help("models"))]
Seed = Annotated[int | None, typer.Option("--seed", help=_help("seed"))]
Kind = Annotated[str | None, typer.Option("--kind", help=_help("kind"))]
Input = Annotated[str | None, typer.Option("--input", help=_help("data.columns.input"))]
Output = Annotated[str | None, typer.Option("--output", help=_help("data.columns.output"))]
From = Annotated[Path | None, typer.Option("--from", help=_help("training.from"))]
Search = Annotated[bool, typer.Option("--search", help=_help("training.search"))]
Out = Annotated[Path | None, typer.Option("--out", help="the run folder; runs/<name>-<hash> when absent")]
Set = Annotated[list[str] | None, typer.Option("--set", help="any key of the task file, as training.epochs=3")]
Code = Annotated[bool, typer.Option("--allow-code", help="run the task file's own metric, which is Python code")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]


def main() -> None:
    """Entry point: runs the command and turns every error into its message and exit code."""
    # Threads that spin for long while they wait stop each other on a busy machine; read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "50000")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)  # what a command left with typer.Exit
        if isinstance(code, int) and code:
            sys.exit(code)
    except typer.Abort:
        sys.exit(_fail(Interrupted(signal.SIGINT)))
    except KeyboardInterrupt:
        sys.exit(_fail(Interrupted(signal.SIGINT)))
    except TuneworthError as error:
        sys.exit(_fail(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except Exception as error:
        if type(error).__name__ in (
            "UsageError",
            "NoSuchOption",
            "BadParameter",
            "MissingParameter",
        ) or hasattr(error, "format_message"):
            _say(f"Error: {error.format_message() if hasattr(error, 'format_message') else error}")
            sys.exit(2)
        if is_out_of_memory(error):
            cure = "close other programs, choose a smaller model, or use a machine with more memory"
            sys.exit(_fail(MachineError("out of memory", cure=cure)))
        traceback.print_exc()
        _say("\nThis is a fault of tuneworth, not of your input. Please report the lines above with the command.")
        sys.exit(1)


@app.command()
def run(
    data: OptionalData = None,
    task: TaskFile = None,
    test: Test = None,
    budget: Budget = None,
    model: Model = None,
    seed: Seed = None,
    kind: Kind = None,
    input_: Input = None,
    output: Output = None,
    from_: From = None,
    search: Search = False,
    out: Out = None,
    set_: Set = None,
    allow_code: Code = False,
    as_json: Json = False,
) -> None:
    """From a data file to a measured verdict: audit, arms, training, evaluation, report."""
    _stage(
        "report", data, task, as_json, out,
        _overrides(
            test=test, budget=budget, model=model, seed=seed, kind=kind, input=input_, output=output, start=from_,
            search=search or None, set=set_,
        ),
        allow_code=allow_code,
    )  # fmt: skip


def _stage_command(stage: str, about: str) -> Callable[..., None]:
    def command(
        data: Data,
        task: TaskFile = None,
        test: Test = None,
        budget: Budget = None,
        model: Model = None,
        seed: Seed = None,
        kind: Kind = None,
        input_: Input = None,
        output: Output = None,
        from_: From = None,
        search: Search = False,
        out: Out = None,
        set_: Set = None,
        allow_code: Code = False,
        as_json: Json = False,
    ) -> None:
        _stage(
            stage, data, task, as_json, out,
            _overrides(
                test=test, budget=budget, model=model, seed=seed, kind=kind, input=input_, output=output, start=from_,
                search=search or None, set=set_,
            ),
            allow_code=allow_code,
        )  # fmt: skip

    command.__doc__ = about
    return command


for _name, _about in {
    "audit": "Check a data set: duplicates, leaks, contradictions, lengths, balance; each finding names its rows.",
    "split": "Clean what the audit found and write train, validation and test; appended rows never move test rows.",
    "baseline": "Run the prompting arms and the classical arm.",
    "train": "Run all arms, fine-tuning included.",
    "evaluate": "Score all arms on the test rows.",
    "probe": "Measure what the budget left out: altered requests, strangers, forgetting, load, the learning curve.",
    "decide": "Weigh the arms and state the verdict.",
    "report": "Write the report as one HTML file.",
}.items():
    app.command(_name)(_stage_command(_name, _about))


@app.command()
def plan(
    data: Data,
    task: TaskFile = None,
    test: Test = None,
    budget: Budget = None,
    model: Model = None,
    seed: Seed = None,
    kind: Kind = None,
    input_: Input = None,
    output: Output = None,
    from_: From = None,
    search: Search = False,
    out: Out = None,
    set_: Set = None,
    quick: Annotated[bool, typer.Option("--quick", help="stop after the advice: no download, no measuring")] = False,
    as_json: Json = False,
) -> None:
    """Advise on model, settings, memory, time and cost; then measure a few steps and allot the budget."""
    overrides = _overrides(
        test=test, budget=budget, model=model, seed=seed, kind=kind, input=input_, output=output, start=from_,
        search=search or None, set=set_,
    )  # fmt: skip
    is_run = (data / "task.yaml").is_file()
    asked = load_task(data / "task.yaml") if is_run else load_task(task, {**overrides, "data.train": str(data)})
    cli_choice.show_advice(asked, as_json and quick, is_silent=as_json and not quick)
    if not quick:
        _stage("plan", data, task, as_json, out, overrides)


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="the data file")],
    to: Annotated[Path, typer.Option("--to", help="the file to write")] = Path("task.yaml"),
) -> None:
    """Write a commented task.yaml for a data file."""
    from tuneworth.data import read_examples
    from tuneworth.store.atomic import write_text
    from tuneworth.task import Columns, commented_yaml

    if to.exists():
        raise InputError("this file exists already", where=str(to), cure="choose another one with --to, or delete it")
    shape = read_examples(data, Columns(), "auto").shape
    relative = os.path.relpath(data.resolve(), to.resolve().parent)
    overrides = {"data.train": relative, "kind": shape.kind, "name": _task_name(data)}
    if shape.input and shape.output and shape.rows == "table":
        overrides |= {"data.columns.input": shape.input, "data.columns.output": shape.output}
    found = "(recognised from your file)"
    notes = dict.fromkeys(("kind", "data.columns.input", "data.columns.output"), found)
    write_text(to, commented_yaml(load_task(None, overrides), notes))
    for sentence in shape.why:
        _say(sentence)
    typer.echo(f"wrote {to}; run it with: tuneworth run --task {to}")


@app.command()
def chat(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")],
    message: Annotated[str | None, typer.Argument(help="one message; without it you are asked line by line")] = None,
    arm: Annotated[str | None, typer.Option("--arm", help="the arm to talk to; the winner when absent")] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 answers as in the evaluation")] = 0.0,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, max=8192, help="longest answer in tokens; as it was judged when absent")
    ] = None,
    as_json: Json = False,
) -> None:
    """Talk to the result of a run: each message is answered as it was judged."""
    with _loading():
        from tuneworth.pipeline.finished import Run

    talker = Run(run_folder).chat_with(arm)

    def answer(text: str) -> str:
        return talker.chat([{"role": "user", "content": text}], max_new_tokens=max_new_tokens, temperature=temperature)

    if message is not None:
        reply = answer(message)
        typer.echo(json.dumps({"arm": talker.name, "answer": reply}, ensure_ascii=False) if as_json else reply)
        return
    _say(f"Talking to {talker.name}. Each line is one message on its own; an empty line ends.")
    while True:
        _say("> ", end="")
        line = sys.stdin.readline()
        if not line.strip():
            return
        typer.echo(answer(line.strip()))


def _stage(
    stage: str, data: Path | None, task_file: Path | None, as_json: bool, out: Path | None, overrides: dict[str, Any],
    *, allow_code: bool = False,
) -> None:  # fmt: skip
    clock = time.monotonic()
    from tuneworth.console import ConsoleWatcher

    is_run = data is not None and (data / "task.yaml").is_file()
    if is_run and (task_file or overrides or out):
        raise InputError(
            "a run folder carries its own task; settings cannot be changed in it",
            where=str(data),
            cure="give the data file instead of the run folder",
        )
    if data is not None and not is_run:
        overrides["data.train"] = str(data)
    with ConsoleWatcher() as watcher:
        watcher.begin("loading libraries", 1)
        if stage in _DATA_STAGES:
            path = _prepare(stage, data if is_run else None, task_file, out, overrides, watcher)
        elif data is not None and is_run:
            with _loading():
                from tuneworth.pipeline.running import resume

            path = resume(data, until=stage, watcher=watcher, allow_code=allow_code, clock=clock).path
        else:
            with _loading():
                from tuneworth.pipeline.running import run as run_pipeline

            task = load_task(task_file, overrides)
            path = run_pipeline(task, out=out, until=stage, watcher=watcher, allow_code=allow_code, clock=clock).path
    folder = RunFolder.existing(path)
    if as_json:
        typer.echo(json.dumps({**_document(folder, stage), "run": str(path)}, ensure_ascii=False))
    else:
        _show(folder, stage)


@contextmanager
def _loading() -> Iterator[None]:
    """Libraries are objects that stay: looking through them for garbage is a quarter of the time to load them."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _prepare(
    stage: str,
    run_folder: Path | None,
    task_file: Path | None,
    out: Path | None,
    overrides: dict[str, Any],
    watcher: Watcher,
) -> Path:
    """The stages that need no model: torch is not loaded for them."""
    from tuneworth.data.registered import pinned
    from tuneworth.pipeline.auditing import audit_large, is_large
    from tuneworth.pipeline.preparing import locked, new_run, prepare

    if run_folder is not None:
        task, opened = load_task(run_folder / "task.yaml"), locked(RunFolder.existing(run_folder))
    else:
        task = pinned(load_task(task_file, overrides))
        opened = new_run(task, out)
    with opened as folder:
        if stage == "audit" and is_large(task):
            audit_large(task, folder, watcher)
        else:
            prepare(task, folder, watcher)
    return folder.path


def _document(folder: RunFolder, stage: str) -> dict[str, Any]:
    if stage == "split":
        files = {name: str(folder.splits / f"{name}.jsonl") for name in ("train", "validation", "test", "removed")}
        return {**read_json(folder.splits / "splits.json"), "files": files}
    if stage == "audit":
        return read_json(folder.audit)
    if stage == "plan":
        return read_json(folder.plan)
    if stage in _ARM_STAGES:
        return {"arms": [read_arm(folder, name) for name in folder.arm_names()]}
    if stage == "probe":
        from tuneworth.pipeline.probing import probes_document

        return probes_document(folder)
    return read_json(folder.verdict)


def _show(folder: RunFolder, stage: str) -> None:
    from tuneworth.console import show_arms, show_audit, show_plan, show_probes, show_splits, show_verdict

    if stage == "split":
        show_splits(_document(folder, stage))
    elif stage == "audit":
        show_audit(_document(folder, stage))
    elif stage == "plan":
        show_plan(_document(folder, stage))
    elif stage in _ARM_STAGES:
        show_arms(_document(folder, stage)["arms"])
    elif stage == "probe":
        show_probes(_document(folder, stage))
    else:
        show_verdict(_document(folder, stage))
    if stage == "report":
        typer.echo(f"Report: {folder.report}")
    typer.echo(f"Run:    {folder.path}")


def _overrides(**given: Any) -> dict[str, Any]:
    keys = {"test": "data.test", "input": "data.columns.input", "output": "data.columns.output"}
    keys |= {"start": "training.from", "search": "training.search"}
    found: dict[str, Any] = {}
    for assignment in given.pop("set") or []:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise InputError(f"'{assignment}' is no assignment", where="--set", cure="write --set training.epochs=3")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"the value of '{key}' is not valid YAML", where="--set") from None
    for name, value in given.items():
        if value is not None:
            key = keys.get(name, "models" if name == "model" else name)
            found[key] = _models(value) if name == "model" else str(value) if isinstance(value, Path) else value
    return found


def _models(text: str) -> str | list[str]:
    """`auto`, a model, or several with commas between them."""
    return text if text == "auto" else [text] if Path(text).exists() else [part.strip() for part in text.split(",")]


def _task_name(data: Path) -> str:
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in data.stem).strip("-._")
    return name[:64] or "task"


def _terminate(number: int, frame: object) -> None:
    raise Interrupted(number)


def _fail(error: TuneworthError) -> int:
    for problem in error.problems:
        _say(f"error: {problem}")
    return error.exit_code


def _say(text: str, end: str = "\n") -> None:
    typer.echo(text + end, err=True, nl=False)


if __name__ == "__main__":
    main()
