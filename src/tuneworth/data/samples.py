"""Checks that cannot look at every row of a large data set: they look at a seeded sample and say so."""

from __future__ import annotations

import numpy as np

from tuneworth.data.checks import TOO_MANY
from tuneworth.data.coverage import sample_rows
from tuneworth.data.example import Example
from tuneworth.data.facts import near_text
from tuneworth.data.findings import Severity, plural
from tuneworth.data.labels import doubts
from tuneworth.data.languages import language_name, language_of, main_language
from tuneworth.data.near import Pairs
from tuneworth.data.stacking import Flaw, Numbers, Stack
from tuneworth.data.vectors import Vectorise

LABELS_SAMPLED = 20_000
LANGUAGES_SAMPLED = 2_000
MEANINGS_SAMPLED = 5_000
SAME_MEANING = 0.95
"""Least cosine of two sentence vectors that counts as the same meaning: 98.5 % of such pairs share their label."""
MANY_DOUBTS = 0.02
"""Share of doubtful labels from which they are a warning."""
OTHER_LANGUAGES = 0.02
"""Share of rows in other languages from which they are a warning."""


def doubtful_labels(stack: Stack, seed: int) -> list[Flaw]:
    """Rows whose label the other rows speak against with confidence. Names the most doubtful first."""
    rows = sample_rows(len(stack), LABELS_SAMPLED, seed)
    labels = stack.column("answers")[rows]
    which, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(which) < 2 or counts.max() < 3:
        return []
    seen = stack.look(rows, _text_and_answer)
    try:
        found = doubts([text for text, _ in seen], classes.astype(np.int64), seed)
    except ValueError:  # no word occurs twice: nothing can be said
        return []
    order = np.argsort(-found.doubt, kind="stable")
    order = order[found.wrong[order]]
    if not len(order):
        return []
    count = len(order)
    names = {int(classes[row]): seen[row][1] for row in range(len(rows))}
    worst = order[0]
    severity: Severity = (
        "error" if count > TOO_MANY * len(rows) else "warn" if count > MANY_DOUBTS * len(rows) else "info"
    )
    message = (
        f"{plural(count, 'label looks', 'labels look')} wrong{_scope(rows, stack)}; the most doubtful is "
        f"'{seen[worst][1]}' where similar rows have '{names[int(found.likelier[worst])]}'"
    )
    repair = "the rows stay; read them, the most doubtful come first, and correct the labels that are wrong"
    return [Flaw("label-doubtful", severity, count, message, rows[order], repair)]


def _text_and_answer(example: Example) -> tuple[str, str]:
    return near_text(example), example.answer


def mixed_languages(stack: Stack, seed: int) -> list[Flaw]:
    """Rows whose input is surely in another language than most."""
    rows = sample_rows(len(stack), LANGUAGES_SAMPLED, seed)
    codes = stack.look(rows, _language)
    main = main_language(codes)
    others = np.array([place for place, code in enumerate(codes) if code not in (None, main)], dtype=np.int64)
    if main is None or not len(others):
        return []
    names = sorted({language_name(str(codes[place])) for place in others})
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    verb = plural(len(others), "row is", "rows are")
    message = f"{verb} not in {language_name(main)} as most are{_scope(rows, stack)}, but in {shown}"
    severity: Severity = "warn" if len(others) > OTHER_LANGUAGES * len(rows) else "info"
    repair = "the rows stay; remove them unless the model will be asked in these languages"
    return [Flaw("language-mix", severity, len(others), message, rows[others], repair)]


def _language(example: Example) -> str | None:
    return language_of(example.text)


def same_meaning(stack: Stack, pairs: Pairs, vectorise: Vectorise, seed: int) -> list[Flaw]:
    """Rows that say the same as an earlier one in other words: neither equal nor nearly equal to it."""
    rows = sample_rows(len(stack), MEANINGS_SAMPLED, seed)
    inputs = stack.column("inputs")
    rows = rows[np.sort(np.unique(inputs[rows], return_index=True)[1])]
    vectors = vectorise(stack.look(rows, near_text))
    known = set(zip(pairs.one.tolist(), pairs.other.tolist(), strict=True))
    found = []
    for start in range(0, len(rows), 1000):
        likeness = vectors[start : start + 1000] @ vectors.T
        for later, earlier in np.argwhere(likeness >= SAME_MEANING):
            later += start
            if earlier < later and (int(rows[earlier]), int(rows[later])) not in known:
                found.append((earlier, later))
    if not found:
        return []
    splits = stack.splits_of(rows)
    across = [(one, other) for one, other in found if splits[one] != splits[other]]
    within = [(one, other) for one, other in found if splits[one] == splits[other]]
    texts = (
        ("leak-semantic", across, "held-out row says", "held-out rows say", "a row to learn from", "remove its twin"),
        ("duplicate-semantic", within, "row says", "rows say", "an earlier one", "remove those that add nothing"),
    )
    flaws = []
    for code, some, one, many, what, cure in texts:
        later = np.unique(np.array([other for _, other in some], dtype=np.int64))
        if len(later):
            message = f"{plural(len(later), one, many)} in other words what {what} says{_scope(rows, stack)}"
            flaws.append(Flaw(code, "info", len(later), message, rows[later], f"the rows stay; {cure}"))
    return flaws


def _scope(rows: Numbers, stack: Stack) -> str:
    return "" if len(rows) == len(stack) else f" (of {len(rows):,} rows drawn from {len(stack):,})"
