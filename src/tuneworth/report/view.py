"""What the page's template needs, looked up in the documents: which arm stands where, which rows lie side by
side.

Nothing is measured or estimated here; places in plots are layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

from tuneworth.decision.wording import about, percent, usd
from tuneworth.report.charts import Axis, Lines, Mark, Series, linear_axis, log_axis, short_count, short_usd
from tuneworth.report.data import Document, ReportData
from tuneworth.report.kinds import Table, calibration, fields, further_metrics, judged, not_allowed, turns

_DASHES = ("", "7 5", "2 5", "12 4 2 4", "1 8")
_SEVERITIES = ("error", "warn", "info")
_FINDING_ROWS = 8
_CLASSES, _CONFUSIONS, _WORST = 8, 10, 12
HEADLINES = {
    "fine-tune": "Fine-tune: use {}",
    "prompt": "Keep prompting: use {}",
    "simpler-model": "A simpler model will do: use {}",
    "more-data": "Label more data first",
    "not-enough-evidence": "Not enough evidence to decide yet",
}
FAMILIES = {"prompt": "prompt", "fine-tune": "fine-tuned", "classical": "classical"}


@dataclass(frozen=True)
class View:
    """The documents of a run as the template reads them."""

    run: ReportData

    @cached_property
    def verdict(self) -> Document:
        """verdict.json, empty where there is none."""
        return self.run.verdict or {}

    @property
    def kind(self) -> str:
        """The verdict's kind; `none` for an unknown or missing one, so that it can name a style."""
        kind = self.verdict.get("verdict")
        return kind if kind in HEADLINES else "none"

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        return HEADLINES.get(self.kind, "No verdict yet").format(self.winner_name or "")

    @property
    def name(self) -> str:
        """The task's name, or that of its data."""
        task = self.run.task or {}
        return str(task.get("name") or PurePath((task.get("data") or {}).get("train") or "Run").stem)

    @property
    def winner_name(self) -> str | None:
        """The arm to use, if there is one."""
        return self.verdict.get("winner")

    @cached_property
    def findings(self) -> Sequence[Mapping[str, Any]]:
        """The audit's findings, the most serious first, each with the lines of its first rows by file."""
        found: list[dict[str, Any]] = [dict(finding) for finding in (self.run.audit or {}).get("findings") or ()]
        for finding in found:
            severity = finding.get("severity")
            finding["tone"] = severity if severity in _SEVERITIES else "none"
            rows = finding.get("rows") or ()
            by_file: dict[str, list[Any]] = {}
            for row in rows[:_FINDING_ROWS]:
                by_file.setdefault(str(row.get("file") or "").rpartition("/")[2], []).append(row.get("line"))
            finding["places"] = by_file
            finding["more"] = max(0, len(rows) - _FINDING_ROWS)
        return sorted(found, key=lambda finding: [*_SEVERITIES, "none"].index(finding["tone"]))

    @cached_property
    def records(self) -> Mapping[str, Document]:
        """arm.json by arm name."""
        return {str(arm.get("name")): arm for arm in self.run.arms}

    @cached_property
    def arms(self) -> Sequence[Mapping[str, Any]]:
        """All arms, the best score first and those without one last; the verdict's figures over
        arm.json's.
        """
        figures = {str(arm.get("name")): arm for arm in self.verdict.get("arms") or ()}
        names = [*figures, *(name for name in self.records if name not in figures)]
        joined: list[dict[str, Any]] = [
            {"name": name, "settings": None, **self.records.get(name, {}), **figures.get(name, {})} for name in names
        ]
        for arm in joined:
            arm["tone"] = arm.get("family") if arm.get("family") in FAMILIES else "none"
            arm["family_word"] = FAMILIES.get(str(arm.get("family")), arm.get("family"))
        return sorted(joined, key=lambda arm: (arm.get("score") is None, -(arm.get("score") or 0)))

    @cached_property
    def done(self) -> Sequence[Mapping[str, Any]]:
        """Arms with a score."""
        return [arm for arm in self.arms if arm.get("score") is not None]

    @property
    def not_done(self) -> Sequence[Mapping[str, Any]]:
        """Arms without a score, skipped or failed; first those of families of which no arm has one."""
        return sorted((arm for arm in self.arms if arm.get("score") is None), key=self.has_rival_of_its_family)

    def has_rival_of_its_family(self, arm: Mapping[str, Any]) -> bool:
        """Whether an arm of the same family has a score."""
        return any(other.get("family") == arm.get("family") for other in self.done)

    def arm(self, name: str | None) -> Mapping[str, Any] | None:
        """The arm of that name."""
        return next((arm for arm in self.arms if arm["name"] == name), None)

    @cached_property
    def main(self) -> Mapping[str, Any] | None:
        """The arm that the page is about: the winner, or the best where there is none."""
        return self.arm(self.winner_name) or next(iter(self.done), None)

    @cached_property
    def best_prompt(self) -> Mapping[str, Any] | None:
        """The best prompting arm."""
        return next((arm for arm in self.done if arm.get("family") == "prompt"), None)

    @cached_property
    def key_comparisons(self) -> Sequence[Document]:
        """Of the main arm: against the runner-up and the best prompt; or the best arm's lead over it."""
        comparisons = self.verdict.get("comparisons") or ()
        main = self.main["name"] if self.main else None
        lead = [pair for pair in comparisons if pair.get("b") == main]
        own = sorted(
            (pair for pair in comparisons if pair.get("a") == main),
            key=lambda pair: pair.get("difference") or 0,
        )
        prompt = [pair for pair in own if self.best_prompt and pair.get("b") == self.best_prompt["name"]]
        close = own[:1] if self.winner_name else own[:2]
        return [*lead, *close, *(pair for pair in prompt if pair not in close)]

    @property
    def closest(self) -> Document | None:
        """The comparison that the verdict hangs on: of the main arm with the one hardest to tell from it."""
        return next(iter(self.key_comparisons), None)

    @property
    def probed(self) -> Sequence[Mapping[str, Any]]:
        """The arms of which more than their score was measured."""
        return [arm for arm in self.done if any(arm.get(key) for key in ("robustness", "forgetting", "out_of_scope"))]

    @cached_property
    def alterations(self) -> Sequence[str]:
        """The kinds of altered requests that some arm was asked."""
        return list(dict.fromkeys(name for arm in self.done for name in arm.get("robustness") or ()))

    @property
    def loads(self) -> Sequence[Mapping[str, Any]]:
        """The arms that were asked several requests at once."""
        return [arm for arm in self.done if arm.get("at_once")]

    @property
    def rival(self) -> Document | None:
        """The comparison of the main arm with the one that break-even is reckoned against."""
        against = (self.verdict.get("break_even") or {}).get("against")
        main = self.main["name"] if self.main else None
        pairs = self.verdict.get("comparisons") or ()
        return next((pair for pair in pairs if (pair.get("a"), pair.get("b")) == (main, against)), None)

    @property
    def shown(self) -> Sequence[Mapping[str, Any]]:
        """The arms whose mistakes are laid open: the main one and the best prompt."""
        chosen = [arm for arm in (self.main, self.best_prompt) if arm is not None]
        return chosen[:1] if len(chosen) == 2 and chosen[0] is chosen[1] else chosen

    @property
    def gaps(self) -> Sequence[str]:
        """What the contract has a place for and this run did not measure."""
        answers = (self.run.audit or {}).get("answers") or {}
        missing = {
            "what more training data would bring": not self.verdict.get("learning_curve"),
            "scores on altered requests (robustness)": not any(arm.get("robustness") for arm in self.done),
            "what fine-tuning made the model forget": not any(arm.get("forgetting") for arm in self.done),
            "the volume at which an arm pays back": not self.verdict.get("break_even"),
        }
        for question in ("domain", "relevance", "quality", "size"):
            status = (answers.get(question) or {}).get("status", "not-measured")
            missing[f"the {question} of the data"] = status == "not-measured"
        return [what for what, absent in missing.items() if absent]

    # --- plots ---

    @cached_property
    def score_axis(self) -> Axis:
        """The axis of the plot of scores."""
        ends = [end for arm in self.done for end in (arm.get("interval") or ()) if end is not None]
        return linear_axis([*ends, *(arm["score"] for arm in self.done)], lambda v: f"{100 * v:g} %", (0.0, 1.0))

    @cached_property
    def cost_axis(self) -> Axis:
        """The axis of the plot of costs per thousand requests; bars begin at zero."""
        known = [arm["usd_per_1k_requests"] for arm in self.done if arm.get("usd_per_1k_requests") is not None]
        return linear_axis([0.0, *known], short_usd, (0.0, float("inf")))

    @cached_property
    def dashes(self) -> Mapping[str, str]:
        """A dash pattern for each arm, so that arms of one family and colour can be told apart."""
        seen: dict[str, int] = {}
        dashes = {}
        for arm in self.arms:
            index = seen[arm["tone"]] = seen.get(arm["tone"], -1) + 1
            dashes[arm["name"]] = _DASHES[index % len(_DASHES)]
        return dashes

    @cached_property
    def cost_lines(self) -> Lines | None:
        """Total cost over volume, with the break-even and the stated volume marked."""
        curve = self.verdict.get("cost_curve") or ()
        series = []
        for arm in self.done:
            pairs = [(point.get("requests"), (point.get("usd") or {}).get(arm["name"])) for point in curve]
            points = [(x, y) for x, y in pairs if x and y]  # zero has no place on a logarithmic axis
            if points:
                series.append(Series(arm["name"], arm["tone"], points, self.dashes[arm["name"]]))
        if not series:
            return None
        x = log_axis((x for line in series for x, _ in line.points), short_count)
        y = log_axis((y for line in series for _, y in line.points), short_usd)
        ends = "; ".join(f"{line.name} from {usd(line.points[0][1])} to {usd(line.points[-1][1])}" for line in series)
        return Lines(
            "Total cost over the number of requests",
            f"Lines of total cost on logarithmic axes: {ends}.",
            x,
            y,
            "requests in all",
            "USD in all",
            series,
            [mark for mark in self._cost_marks() if x.low <= mark.x <= x.high],
        )

    @cached_property
    def stated_volume(self) -> Document | None:
        """The point of the cost curve at the task's own volume and horizon."""
        curve = self.verdict.get("cost_curve") or ()
        return next((point for point in curve if point.get("requests") == self._volume and point.get("usd")), None)

    @property
    def _volume(self) -> float:
        decision = (self.run.task or {}).get("decision") or {}
        return float((decision.get("requests_per_month") or 0) * (decision.get("horizon_months") or 0))

    def _cost_marks(self) -> list[Mark]:
        marks = []
        requests = (self.verdict.get("break_even") or {}).get("requests") or {}
        if requests.get("estimate"):
            low, high = requests.get("interval") or (None, None)
            marks.append(Mark(requests["estimate"], f"break-even {about(requests['estimate'])}", low, high))
        return [*marks, Mark(self._volume, "your volume")] if self._volume else marks

    @cached_property
    def growth_lines(self) -> Lines | None:
        """The measured points of the learning curve and the band around it."""
        curve = self.verdict.get("learning_curve") or {}
        measured = curve.get("points") or ()
        points = [(p["rows"], p["score"]) for p in measured if None not in (p.get("rows"), p.get("score"))]
        if not points:
            return None
        band = [p for p in curve.get("band") or () if None not in (p.get("rows"), p.get("low"), p.get("high"))]
        ends = [(point["rows"], end) for point in band for end in (point["low"], point["high"])]
        rows = [row for row, _ in (*points, *ends)]
        x = linear_axis(rows, short_count, (0.0, float("inf")))
        y = linear_axis([score for _, score in (*points, *ends)], percent, (0.0, 1.0))
        series = [Series("measured", "fine-tune", points, dots=True)]
        for name, key in (("90 % band", "low"), ("", "high")):
            if band:
                series.append(Series(name, "thin", [(point["rows"], point[key]) for point in band], "7 5"))
        words = "; ".join(f"{short_count(row)} rows: {percent(score)}" for row, score in points)
        marks = [Mark(points[-1][0], "your rows")]
        return Lines("Score over the rows learnt from", words, x, y, "training rows", "score", series, marks)

    def training_lines(self, arm: Mapping[str, Any]) -> Sequence[Lines]:
        """Loss over steps, and the score on validation rows, as far as they were recorded."""
        training = arm.get("training") or {}
        losses = _points(training.get("metrics"), "loss")
        validation = _points(training.get("evaluations"), "validation_loss")
        scores = _points(training.get("evaluations"), "validation_score")
        x = linear_axis([step for step, _ in (*losses, *validation, *scores)], short_count, (0.0, float("inf")))
        plots = []
        if losses or validation:
            y = linear_axis([loss for _, loss in (*losses, *validation)], lambda v: f"{v:g}", (0.0, float("inf")))
            series = [Series("training loss", "thin", losses)] if losses else []
            if validation:
                series.append(Series("validation loss", arm["tone"], validation, dots=True))
            words = f"Loss of {arm['name']} over the steps of training."
            plots.append(Lines("Loss", words, x, y, "step", "loss a token", series))
        if scores:
            y = linear_axis([score for _, score in scores], percent, (0.0, 1.0))
            words = f"Validation score of {arm['name']} over the steps of training."
            series = [Series("validation score", arm["tone"], scores, dots=True)]
            plots.append(Lines("Validation score", words, x, y, "step", "score", series))
        return plots

    # --- what the kind of task measures ---

    @property
    def measures(self) -> Sequence[Table]:
        """Numbers beside the score, of all arms."""
        tables = (further_metrics, calibration, judged, turns)
        return [table for make in tables if (table := make(self.done)) is not None]

    @property
    def faults(self) -> Sequence[Table]:
        """Fields and answers that go wrong, of the arms whose mistakes are laid open."""
        return [table for table in (fields(self.shown), not_allowed(self.shown)) if table is not None]

    @cached_property
    def reliability_lines(self) -> Lines | None:
        """How often each arm is right over how sure it is, beside the diagonal of one that is both alike."""
        series, words = [Series("as often as it is sure", "thin", [(0.0, 0.0), (1.0, 1.0)], "7 5")], []
        for arm in self.done:
            bins = (arm.get("calibration") or {}).get("bins") or ()
            if bins:
                points = [(one["confidence"], one["right"]) for one in bins]
                series.append(Series(arm["name"], arm["tone"], points, dots=True))
                words.append(f"{arm['name']}: error {percent(arm['calibration']['error'])}")
        if not words:
            return None
        x, y = (linear_axis([0.0, 1.0], percent, (0.0, 1.0)) for _ in "xy")
        return Lines("Right as often as sure", "; ".join(words), x, y, "how sure", "share right", series)

    # --- mistakes ---

    @cached_property
    def worst_classes(self) -> Sequence[Mapping[str, Any]]:
        """The classes that the main arm finds least often, each with every shown arm's recall."""
        tables = [{row.get("label"): row for row in arm.get("classes") or ()} for arm in self.shown]
        if not tables:
            return []
        lowest = sorted(tables[0].values(), key=lambda row: (row.get("recall") is None, row.get("recall") or 0))
        return [
            {**row, "recalls": [table.get(row.get("label"), {}).get("recall") for table in tables]}
            for row in lowest[:_CLASSES]
        ]

    def confusions(self, arm: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The most frequent confusions, each with the rows of its class and its share of the largest bar."""
        rows = {entry.get("label"): entry.get("rows") for entry in arm.get("classes") or ()}
        found = (arm.get("confusions") or ())[:_CONFUSIONS]
        axis = linear_axis([0.0, *(entry.get("count") or 0 for entry in found)], str, (0.0, 0.0))
        return [
            {**entry, "rows": rows.get(entry.get("wanted")), "place": axis.place(entry.get("count") or 0)}
            for entry in found
        ]

    @cached_property
    def worst_rows(self) -> Sequence[Mapping[str, Any]]:
        """The main arm's worst rows with what each arm answered, as far as that is known."""
        if self.main is None:
            return []
        by_arm = {arm["name"]: {row.get("id"): row for row in arm.get("worst") or ()} for arm in self.done}
        rows = []
        for row in (self.main.get("worst") or ())[:_WORST]:
            known = self.run.answers.get(str(row.get("id")), {})
            answers = [
                {
                    "arm": arm["name"],
                    "tone": arm["tone"],
                    **(known.get(arm["name"]) or rows_of.get(row.get("id"), {})),
                }
                for arm, rows_of in zip(self.done, by_arm.values(), strict=True)
            ]
            rows.append({**row, "answers": answers})
        return rows


def _points(records: Sequence[Document] | None, key: str) -> list[tuple[float, float]]:
    return [
        (row["step"], row[key]) for row in records or () if row.get("step") is not None and row.get(key) is not None
    ]
