"""The same task told in other words: what a prompt's wording alone is worth is measured on validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuneworth.evaluation.prompts import PromptForm

_ALONE = "Reply with the answer alone: no explanation, no greeting, no quotes."
_CAREFUL = "You know this task well. Read the whole message before you answer."


def reworded(form: PromptForm, labels: Sequence[str] = ()) -> list[PromptForm]:
    """`form` first, then its paraphrases: what to do stated first and last; labels, if any, listed in one line.

    A form whose rows bring their own system message has none to reword.
    """
    if not form.system:
        return [form]
    listed = "\n".join(f"- {label}" for label in labels)
    told = form.system.split("\n\nLabels:\n", 1)[0] if labels else form.system
    if not labels or listed not in form.system:
        return [
            form,
            replace(form, name=f"{form.name}, alone", system=f"{form.system}\n\n{_ALONE}"),
            replace(form, name=f"{form.name}, careful", system=f"{_CAREFUL}\n\n{form.system}"),
        ]
    line = ", ".join(labels)
    return [
        form,
        replace(form, name=f"{form.name}, one line", system=f"{told} Answer with one of these labels: {line}"),
        replace(
            form,
            name=f"{form.name}, labels first",
            system=f"These are the labels:\n{listed}\n\n{told} Reply with its label, word for word, and nothing else.",
        ),
    ]
