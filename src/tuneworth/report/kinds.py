"""Tables of what each kind of task measures beside its score: further metrics, fields, turns, what was not allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneworth.decision.wording import count, percent

Arm = Mapping[str, Any]
_FIELDS, _NAMED = 12, 8
_PLAIN = frozenset(["length_ratio", "mean_margin", "median_margin", "references_per_row"])
_COUNTS = frozenset(["rows_that_call", "unknown_labels", "unknown_tools"])
_NAMES = {
    "macro_f1": "F1, mean over classes",
    "micro_f1": "F1 over all labels together",
    "f1": "F1 of a row's labels",
    "hamming_loss": "wrong label decisions (0 % is best)",
    "field_f1": "F1 of a row's fields",
    "micro_field_f1": "F1 over all fields together",
    "schema_valid": "answers that fit the schema",
    "closed_early": "answers so long that they were closed",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU of the corpus",
    "chrf": "chrF of the corpus",
    "length_ratio": "words written over words wanted",
    "references_per_row": "wanted answers a row",
    "mean_margin": "mean margin, nats",
    "median_margin": "median margin, nats",
    "pair_accuracy_per_token": "pair accuracy by probability per token",
    "right_tools": "right tools, of rows that call",
    "right_arguments": "right arguments, where the tools are right",
    "right_abstention": "no call where none is wanted",
    "valid_json": "calls that are valid JSON",
    "words_rouge_l": "ROUGE-L of replies in words",
}
_NAMED_THINGS = {
    "unknown_labels_named": "labels that do not exist",
    "unknown_tools_named": "tools that do not exist",
    "why_invalid": "why answers are invalid",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text; the first cell of a row is its head."""

    title: str
    about: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def further_metrics(arms: Sequence[Arm]) -> Table | None:
    """Every number of the arms' `metrics`, an arm a column; None where there is none."""
    flat = [_flat(arm.get("metrics")) for arm in arms]
    names = list(dict.fromkeys(name for numbers in flat for name in numbers))
    if not names:
        return None
    rows = [[_named(name), *(_shown(name, numbers.get(name)) for numbers in flat)] for name in names]
    return Table("Further measures", "On the same test rows.", ["Measure", *(str(arm["name"]) for arm in arms)], rows)


def judged(arms: Sequence[Arm]) -> Table | None:
    """What the task's judge says of each arm; None where nothing was judged."""
    known = [arm for arm in arms if arm.get("judge")]
    if not known:
        return None
    rows = []
    for arm in known:
        found = arm["judge"]
        why = ", ".join(f"{times} times {reason}" for reason, times in (found.get("why_no_verdict") or {}).items())
        without = f"{_count(found.get('no_verdict'))}{f' ({why})' if why else ''}"
        numbers = (_percent(found.get("score")), _count(found.get("rows")), without)
        rows.append([str(arm["name"]), *numbers, _percent(found.get("same_in_both_orders"))])
    about = (
        f"{known[0]['judge'].get('model')} compared each answer with the wanted one, in both orders: 100 % if all were "
        "better, 50 % if as good, 0 % if worse. Whether people agree with it is said with the verdict."
    )
    head = ["Arm", "Score", "Rows", "Without a verdict", "The same in both orders"]
    return Table("The judge", about, head, rows)


def calibration(arms: Sequence[Arm]) -> Table | None:
    """How sure each arm is and how often it is right; None where no arm answers with labels."""
    known = [arm for arm in arms if arm.get("calibration")]
    if not known:
        return None
    rows = []
    for arm in known:
        found = arm["calibration"]
        error = found.get("error")
        bins = "; ".join(
            f"{percent(one['confidence'])} sure, {percent(one['right'])} right ({count(one['rows'])} rows)"
            for one in found.get("bins") or ()
        )
        shown = f"not measured: {found.get('why')}" if error is None else percent(error)
        rows.append([str(arm["name"]), shown, _count(found.get("rows")) if error is not None else "-", bins or "-"])
    about = (
        "The expected calibration error is how far apart being sure and being right are, over ten bins weighted by "
        "their rows; 0 % is best. Only rows by which an arm tells a probability of its own answer count."
    )
    return Table("Is it right as often as it is sure?", about, ["Arm", "Error", "Rows", "Bins"], rows)


def fields(arms: Sequence[Arm]) -> Table | None:
    """The fields of extracted objects, the worst of the first arm first, with every arm's precision and recall."""
    tables = [{str(row.get("field")): row for row in (arm.get("metrics") or {}).get("fields") or ()} for arm in arms]
    if not tables or not tables[0]:
        return None
    order = sorted(tables[0].values(), key=lambda row: row.get("f1") or 0)[:_FIELDS]
    rows = [
        [
            str(row.get("field")),
            _count(row.get("values")),
            *(_field(table.get(str(row.get("field")))) for table in tables),
        ]
        for row in order
    ]
    head = ["Field", "Values wanted", *(f"{arm['name']}: precision, recall" for arm in arms)]
    return Table("Fields", f"The fields that {arms[0]['name']} gets wrong most.", head, rows)


def turns(arms: Sequence[Arm]) -> Table | None:
    """The loss of the wanted answer at every turn, an arm a column."""
    known = [arm for arm in arms if arm.get("turns")]
    if not known:
        return None
    tables = [{row.get("turn"): row for row in arm["turns"]} for arm in known]
    numbers = sorted({turn for table in tables for turn in table if turn is not None})
    rows = [
        [f"turn {turn}", _count(tables[0].get(turn, {}).get("rows")), *(_loss(table.get(turn)) for table in tables)]
        for turn in numbers
    ]
    about = "Nats per token of the wanted answers, the answers before them given as wanted; the lower, the better."
    return Table("Loss of each turn", about, ["Turn", "Rows", *(str(arm["name"]) for arm in known)], rows)


def not_allowed(arms: Sequence[Arm]) -> Table | None:
    """What the arms answered that is not allowed, the most frequent first."""
    rows = []
    for arm in arms:
        for key, what in _NAMED_THINGS.items():
            named = (arm.get("metrics") or {}).get(key) or {}
            ordered = sorted(named.items(), key=lambda item: -item[1])[:_NAMED]
            rows += [[str(arm["name"]), what, str(name), _count(times)] for name, times in ordered]
    if not rows:
        return None
    return Table("Answers that are not allowed", "They score nothing.", ["Arm", "What", "Answered", "Rows"], rows)


def _flat(metrics: Any, prefix: str = "") -> dict[str, float | None]:
    """Numbers by name; those inside an object under the object's name."""
    found: dict[str, float | None] = {}
    for name, value in (metrics or {}).items():
        if name in _NAMED_THINGS:
            continue
        if isinstance(value, Mapping):
            found |= {f"{_named(name)}: {inner}": number for inner, number in _flat(value).items()}
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            found[prefix + name] = value
    return found


def _named(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "not measured"
    if name in _PLAIN:
        return f"{value:.2f}"
    return count(value) if name in _COUNTS or name.endswith(": rows") else percent(value)


def _field(row: Arm | None) -> str:
    if row is None:
        return "not measured"
    precision, recall = row.get("precision"), row.get("recall")
    return (
        f"{'never answered' if precision is None else percent(precision)}, {'-' if recall is None else percent(recall)}"
    )


def _loss(row: Arm | None) -> str:
    value = (row or {}).get("nats_per_token")
    return "not measured" if value is None else f"{value:.3f}"


def _percent(value: Any) -> str:
    return percent(value) if isinstance(value, int | float) else "not measured"


def _count(value: Any) -> str:
    return count(value) if isinstance(value, int | float) else "not measured"
