"""What the command line shows: progress on stderr while it works, tables on stdout when it is done."""

from __future__ import annotations

import re
import textwrap
import time
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from tuneworth.task import format_seconds

_COLOURS = {
    "pass": "green",
    "warn": "yellow",
    "fail": "red",
    "error": "red",
    "info": "blue",
    "not-measured": "dim",
}
_SEVERITIES = ("error", "warn", "info")
_PLACES = 8  # rows of a finding that are shown
_HEADLINES = {
    "fine-tune": "Fine-tune",
    "prompt": "Keep prompting",
    "simpler-model": "Use a simpler model",
    "more-data": "Collect more data",
    "not-enough-evidence": "Not enough evidence",
}


_RATE_STEPS = 10  # tokens/s is that of the last steps together


class ConsoleWatcher:
    """A watcher that draws a bar for the step at hand, and prints what is worth knowing as a line.

    The time left is that of the training itself (its own measured steps and evaluations), elsewhere that of the mean
    pace since the bar began; both settle as work goes on and never turn negative.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[live]}"),
            console=self._console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._started = self._begun = time.monotonic()
        self._done = self._total = 0
        self._steps: deque[tuple[int, float]] = deque(maxlen=_RATE_STEPS)

    def __enter__(self) -> ConsoleWatcher:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, what: str, total: int) -> None:
        """A new step: one bar at a time."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total, live="", left="")
        self._done, self._total, self._begun = 0, total, time.monotonic()
        self._steps.clear()
        if not self._console.is_terminal:
            self.note(what)

    def advance(self, units: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._done += units
            took = time.monotonic() - self._begun
            left = _left(took / self._done * (self._total - self._done)) if self._done else ""
            self._progress.update(self._task, advance=units, left=left)

    def record(self, record: Mapping[str, Any]) -> None:
        """One training step moves the bar; an evaluation is a line."""
        if self._task is None:
            return
        if "loss" in record:
            self._steps.append((record["tokens"], record["step_seconds"]))
            tokens, seconds = map(sum, zip(*self._steps, strict=True))
            live = f"loss {record['loss']:.3f}  {tokens / seconds:,.0f} tokens/s"
            self._progress.update(self._task, advance=1, live=live, left=_left(record["seconds_left"]))
        elif "validation_score" in record:
            self._progress.update(self._task, total=record["steps"])
            self.note(
                f"step {record['step']} of {record['steps']}: validation score {record['validation_score']:.3f}, "
                f"loss {record['validation_loss']:.3f}"
            )
        if "warning" in record:
            self.note(f"warning at step {record['step']}: {record['warning']}")

    def note(self, text: str) -> None:
        """A line with the time since the start."""
        since = format_seconds(time.monotonic() - self._started)
        self._console.print(Text(f"{since:>7}  ", "dim") + Text(text))


def _left(seconds: float) -> str:
    return f"{format_seconds(max(0.0, seconds))} left"


def show_verdict(verdict: Mapping[str, Any]) -> None:
    """The verdict, its reasons, and the arms as a table."""
    console = _stdout()
    headline = _HEADLINES[verdict["verdict"]] + (f": {verdict['winner']}" if verdict["winner"] else "")
    console.print()
    console.print(Text(headline, "bold"))
    for sentence in verdict["why"]:
        console.print(Text(f"  {sentence}"))
    console.print()
    console.print(_arms_table(verdict))
    console.print()


def show_arms(arms: Sequence[Mapping[str, Any]]) -> None:
    """Finished arms, without a verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("arm", "score", "rows", "status"):
        table.add_column(title, justify="left" if title in ("arm", "status") else "right")
    for arm in arms:
        done = arm["status"] == "done"
        score, rows = (f"{arm['score']:.3f}", f"{arm['rows']:,}") if done else ("", "")
        table.add_row(Text(arm["name"]), score, rows, Text("done" if done else f"{arm['status']}: {arm['why']}"))
    _stdout().print(table)


def show_probes(found: Mapping[str, Any]) -> None:
    """Of each arm its worst loss under alterations, what it forgot, how it met strangers, and how it bears a load."""
    console = _stdout()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("arm")
    for title in ("worst alteration", "forgotten, nats", "strangers answered", "told apart", "p50 s at 1, 4, 16"):
        table.add_column(title, justify="right")
    for name, arm in found["arms"].items():
        altered = {k: v for k, v in arm.get("robustness", {}).items() if k != "schema"}
        worst = min(altered, key=lambda key: altered[key]["difference"], default=None)
        forgotten, strangers = arm.get("forgetting"), arm.get("out_of_scope", {})
        if not arm:
            continue
        table.add_row(
            Text(name),
            "-" if worst is None else f"{worst} {100 * altered[worst]['difference']:+.1f} points",
            _number(forgotten["loss_after"] - forgotten["loss_before"] if forgotten else None, "+.3f"),
            _number(strangers.get("answered"), ".0%"),
            _number(strangers.get("auroc"), ".2f"),
            ", ".join(f"{point['seconds_p50']:.3f}" for point in arm.get("at_once", ())) or "-",
        )
    console.print(table)
    curve = found["learning_curve"]
    if curve is not None:
        points = ", ".join(f"{point['score']:.3f} from {point['rows']:,} rows" for point in curve["points"])
        console.print(Text(f"Learning curve of {curve['arm']}: {points}"))
    for name, probe in found["probes"].items():
        if probe["status"] != "done":
            console.print(Text(f"{name} was not measured: {probe['why']}", "yellow"))


def show_audit(audit: Mapping[str, Any]) -> None:
    """The four answers, then every finding, the most serious first, with rows to look at and what cures it."""
    console = _stdout()
    width = min(console.width, 100) if console.is_terminal else 80
    rows = ", ".join(f"{count:,} {name}" for name, count in audit["rows"].items() if count)
    console.print(Text(f"Rows: {rows}", "bold"))
    for question, answer in audit["answers"].items():
        status = answer["status"]
        head = Text(f"  {question:<11}") + Text(f"{status.replace('-', ' '):<14}", _COLOURS[status])
        _print_wrapped(console, head, answer["why"], width)
    findings = sorted(audit["findings"], key=lambda finding: _SEVERITIES.index(finding["severity"]))
    names = _short_names({row["file"] for finding in findings for row in finding["rows"]})
    if findings:
        counts = Counter(finding["severity"] for finding in findings)
        words = [
            f"{counts[severity]} {noun}{'s' * (counts[severity] > 1)}"
            for severity, noun in zip(_SEVERITIES, ("error", "warning", "note"), strict=True)
            if counts[severity]
        ]
        console.print(Text(f"\nFindings, most serious first: {', '.join(words)}", "bold"))
    for finding in findings:
        console.print()
        head = Text(f"{finding['severity']:<6}", f"bold {_COLOURS[finding['severity']]}")
        _print_wrapped(console, head, f"{finding['message']}  [{finding['code']}]", width)
        indent = Text(" " * 6)
        if finding["rows"]:
            _print_wrapped(console, indent + Text("rows  ", "dim"), _places(finding, names), width)
        if finding["repair"]:
            _print_wrapped(console, indent + Text("cure  ", "dim"), finding["repair"], width)
    console.print()


def _short_names(files: Collection[str]) -> dict[str, str]:
    """The name of each file, with as many of its folders as tell all of them apart: `test/seq.in`."""
    parts = {file: PurePath(file).parts for file in files}
    for length in range(1, max(map(len, parts.values()), default=0) + 1):
        names = {file: "/".join(path[-length:]) for file, path in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {file: file for file in files}


def _places(finding: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """`train.csv lines 4, 8; test.csv line 2; 90 more in audit.json`."""
    shown = finding["rows"][:_PLACES]
    by_file: dict[str, list[str]] = {}
    for row in shown:
        by_file.setdefault(names[row["file"]], []).append(f"{row['line']:,}")
    places = [f"{file} line{'s' * (len(lines) > 1)} {', '.join(lines)}" for file, lines in by_file.items()]
    more = len(finding["rows"]) - len(shown)
    return "; ".join([*places, f"{more} more in audit.json"] if more else places)


def _print_wrapped(console: Console, head: Text, text: str, width: int) -> None:
    """`text` behind `head`, later lines indented as far; signs that would steer the terminal are replaced."""
    shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    lines = textwrap.wrap(shown, width - head.cell_len, break_on_hyphens=False) or [""]
    console.print(head + Text(lines[0]), soft_wrap=True)
    for line in lines[1:]:
        console.print(Text(" " * head.cell_len + line), soft_wrap=True)


def show_splits(splits: Mapping[str, Any]) -> None:
    """How many rows each part has, where they lie, and why."""
    console = _stdout()
    for name, path in splits["files"].items():
        count = splits["removed"] if name == "removed" else splits["rows"][name]
        console.print(Text(f"{name:<11}{count:>9,} rows  ") + Text(path, "dim"))
    for sentence in splits["why"]:
        console.print(Text(f"  {sentence}"))


def show_plan(plan: Mapping[str, Any]) -> None:
    """Settings with reasons, and the budget by stage."""
    console = _stdout()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("setting", "value", "reason"):
        table.add_column(title)
    for name, setting in plan["settings"].items():
        table.add_row(Text(name), Text(str(setting["value"])), Text(setting["reason"]))
    console.print(table)
    console.print()
    budget = Table(box=None, pad_edge=False, header_style="bold")
    budget.add_column("stage")
    budget.add_column("seconds", justify="right")
    for stage, seconds in plan["budget"].items():
        budget.add_row(Text(stage), f"{seconds:,.0f}")
    console.print(budget)
    for arm, why in plan["skipped"].items():
        console.print(Text(f"{arm} is skipped: {why}", "yellow"))
    for probe, planned in plan.get("probes", {}).items():
        if planned["why"]:
            console.print(Text(f"{probe} is not afforded: {planned['why']}", "dim"))


def show_advice(advice: Mapping[str, Any]) -> None:
    """What an expert would say before anything starts, in paragraphs."""
    console = _stdout()
    width = min(console.width, 100) if console.is_terminal else 100
    console.print(Text("Advice before anything is downloaded or started", "bold"))
    for title, text in advice_paragraphs(advice):
        console.print()
        _print_wrapped(console, Text(f"{title:<10}", "bold"), text, width)
    console.print()


def advice_paragraphs(advice: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(title, text) of each part of the advice."""
    found = [("Model", _model_sentence(advice["model"])), ("Rows", _rows_sentence(advice))]
    unused = "learning_rate" if advice["settings"]["method"]["value"] == "full" else "full_learning_rate"
    found += [
        (_SETTING_TITLES[name], f"{setting['value']}. {_sentence(setting['reason'])}")
        for name, setting in advice["settings"].items()
        if name in _SETTING_TITLES and name != unused
    ]
    found += [("Memory", _memory_sentence(advice)), ("Time", _time_sentence(advice)), ("Cost", _cost_sentence(advice))]
    found.append(("Budget", _budget_sentence(advice)))
    if advice["test_shows"] is not None:
        found.append(
            (
                "Test",
                f"{advice['rows']['test']:,} rows show a difference of {100 * advice['test_shows']:.1f} points or more "
                "between two ways that disagree on a fifth of the rows (4 times in 5); smaller ones need more rows.",
            )
        )
    overrides = "--model, --budget, --set training.epochs=..., batch_size, learning_rate, rank, method, precision"
    return [*found, ("Change", f"any of this with {overrides}.")]


_SETTING_TITLES = {
    "method": "Method",
    "learning_rate": "Rate",
    "full_learning_rate": "Rate",
    "epochs": "Epochs",
    "batch_size": "Batch",
    "rank": "Rank",
    "precision": "Precision",
}
_OVERRIDE = re.compile(r" \(override: [^)]*\)")  # said once at the end


def _sentence(text: str) -> str:
    plain = _OVERRIDE.sub("", text).rstrip(".")
    return f"{plain[:1].upper()}{plain[1:]}."


def _model_sentence(model: Mapping[str, Any]) -> str:
    licence = f"{model['licence']} ({model['licence_limits']})" if model["licence"] else "not in the catalogue"
    size = f"{model['parameters'] / 1e6:,.0f} M parameters"
    return f"{model['id']}, {size}, context {model['context']:,}. Licence: {licence}."


def _rows_sentence(advice: Mapping[str, Any]) -> str:
    rows = advice["rows"]
    counted = "Counted with the model's tokenizer." if advice["tokens_counted"] else (
        "Estimated from bytes, since the model's tokenizer is not here yet."
    )  # fmt: skip
    forms = "; ".join(
        f"{name} prompt {found['mean']:.0f} tokens a row (longest {found['longest']:,}; {found['shared']:,} shared by "
        f"all rows, {found['trained']:.0f} trained)"
        for name, found in advice["tokens"].items()
    )
    return (
        f"{rows['train']:,} to train on, {rows['validation']:,} to choose with, {rows['test']:,} to judge with, before "
        f"cleaning. {forms[:1].upper()}{forms[1:]}. {counted}"
    )


def _memory_sentence(advice: Mapping[str, Any]) -> str:
    memory, batch = advice["memory"], advice["memory"]["micro_batch"]
    parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in memory["parts"].items())
    behind = f" behind {batch['prefix']:,} shared ones" if batch["prefix"] else ""
    return (
        f"Training fits {memory['how']}: {memory['peak_bytes'] / 1e9:.1f} GB at its peak, "
        f"{memory['free_bytes'] / 1e9:.1f} GB are free. In GB: {parts}; that is with {batch['rows']} rows of "
        f"{batch['length']:,} tokens{behind} at a time. One request needs "
        f"{advice['request']['peak_bytes'] / 1e9:.1f} GB."
    )


def _time_sentence(advice: Mapping[str, Any]) -> str:
    stages = {name: value for name, value in advice["seconds"].items() if name != "one request alone"}
    told = "; ".join(f"{name} {format_seconds(value)}" for name, value in stages.items())
    return (
        f"{told[:1].upper()}{told[1:]}; one request alone {advice['request']['seconds']:.2f} s. From this machine's "
        "rates, to a factor of about two; measured steps make it exact."
    )


def _cost_sentence(advice: Mapping[str, Any]) -> str:
    return (
        f"About {advice['predicted']['usd']:.2f} USD of machine time for all of it, then "
        f"{advice['request']['usd_per_1k']:.4f} USD for 1,000 requests, one at a time."
    )


def _budget_sentence(advice: Mapping[str, Any]) -> str:
    budget, wanted = advice["budget_seconds"], advice["predicted"]["seconds"]
    if wanted <= 0.9 * budget:
        return f"{format_seconds(budget)} is enough for all of this."
    first = next(value for name, value in advice["seconds"].items() if name.startswith("train"))
    return (
        f"All of this takes about {format_seconds(wanted)}, the budget is {format_seconds(budget)}. The training "
        f"behind the short prompt comes first ({format_seconds(first)} in full) and takes as many steps as fit; what "
        "cannot be afforded is left out, and said."
    )


def _arms_table(verdict: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("arm")
    percent = f"{verdict['confidence']:.0%} interval"
    for title in (
        verdict["metric"],
        percent,
        "tokens in",
        "out",
        "p50 s",
        "USD / 1k",
        "USD to build",
        "invalid",
    ):
        table.add_column(title, justify="right")
    for arm in verdict["arms"]:
        name = Text(arm["name"], "bold" if arm["name"] == verdict["winner"] else "")
        if arm["status"] != "done":
            table.add_row(name + Text(f"  ({arm['status']})", "dim"))
            continue
        low, high = arm["interval"]
        table.add_row(
            name,
            f"{arm['score']:.3f}",
            f"{low:.3f} to {high:.3f}",
            _number(arm["input_tokens"], ",.0f"),
            _number(arm["output_tokens"], ",.1f"),
            _number((arm["seconds"] or {}).get("p50"), ".3f"),
            _number(arm["usd_per_1k_requests"], ".5f"),
            _number(arm["usd_to_build"], ".4f"),
            _number(arm["invalid"], ".1%"),
        )
    return table


def _stdout() -> Console:
    """Standard output; where it is no terminal (a file, a pipe) lines are wide, so that tables stay tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
