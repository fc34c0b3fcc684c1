"""The ladder: every way of doing the task that a run can measure, from cheap to dear. To add an arm is to add an entry.

An entry says what family the arm is of, what it takes (prompt forms to choose among, or a form to train behind), and
whether a run can do without it. How the ways of a family are run stands in `running.py`, once for each family.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuneworth.decision.records import Family
from tuneworth.evaluation.arms import Bench
from tuneworth.evaluation.documents import documents_forms
from tuneworth.evaluation.forms import Form
from tuneworth.evaluation.instructions import reworded
from tuneworth.evaluation.prompted import few_shot, zero_shot
from tuneworth.evaluation.prompts import FULL, SHORT, PromptForm, with_shots
from tuneworth.evaluation.retrieved import retrieved_forms
from tuneworth.evaluation.searched import searched_forms
from tuneworth.models.tuning import FULL_METHOD
from tuneworth.plan import Prompts
from tuneworth.task import Task

if TYPE_CHECKING:
    from tuneworth.pipeline.workshop import Workshop

CLASSICAL, ZERO_SHOT, FEW_SHOT, RETRIEVED = "classical", "zero-shot", "few-shot", "retrieved"
REWORDED, SEARCHED, DOCUMENTS = "reworded", "searched", "documents"
HOSTED_TUNED = "hosted-tuned"
LORA_SHORT, LORA_FULL, LORA_FEW_SHOT = "lora-short", "lora-full", "lora-few-shot"
WEIGHTS_SHORT, WEIGHTS_FULL = "weights-short", "weights-full"
DISTILLED = "distilled"
AT = "@"
"""Between an arm and the provider whose model it asks: `few-shot@gpt`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompting arm: the forms it chooses among (first the one asked without a choice), and what it costs the plan.

    `rate_of` names a cheaper arm whose measured rate serves for this one too.
    """

    forms: Callable[[Workshop, Bench], Sequence[Form]]
    prompts: Prompts
    rate_of: str | None = None


@dataclass(frozen=True, slots=True)
class Taught:
    """A trained arm: the form it is trained and judged behind, whether all weights are trained or an adapter, how many
    training rows every prompt shows (those are not trained on), and whether it also learns what the best prompting arm
    answers to requests without labels."""

    form: str
    all_weights: bool = False
    shots: int = 0
    distils: bool = False

    def form_of(self, bench: Bench) -> PromptForm:
        """The prompt form, on the rows of `bench`."""
        form = bench.form(self.form)
        return with_shots(form, bench.train, self.shots, bench.task.seed, bench.kind) if self.shots else form


@dataclass(frozen=True, slots=True)
class TaughtThere:
    """A hosted model that its provider trains: the form that it is trained and judged behind."""

    form: str


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of doing the task. `way` is None for the classical arm. `auto` says whether it is tried when the task
    names no arms; `provider` names the hosted model that is asked instead of the local one."""

    name: str
    family: Family
    way: Asked | Taught | TaughtThere | None = None
    auto: Callable[[Task], bool] = lambda task: True
    provider: str | None = None

    @property
    def asked(self) -> Asked | None:
        """How it prompts, if it does."""
        return self.way if isinstance(self.way, Asked) else None

    @property
    def taught(self) -> Taught | None:
        """How it is trained, if it is."""
        return self.way if isinstance(self.way, Taught) else None

    @property
    def taught_there(self) -> TaughtThere | None:
        """How its provider trains it, if it does."""
        return self.way if isinstance(self.way, TaughtThere) else None


def _trains_all(task: Task) -> bool:
    return task.training.method == FULL_METHOD


def _trains_adapters(task: Task) -> bool:
    return not _trains_all(task)


_NOT_HOSTED = ("tools", "preference")  # calls are no text, and a preference is read from likelihoods
_NOT_DISTILLED = (*_NOT_HOSTED, "chat")  # requests are single messages, without tools, and no pairs

LADDER = (
    Arm(CLASSICAL, "classical"),
    Arm(ZERO_SHOT, "prompt", Asked(lambda work, bench: zero_shot(bench), Prompts())),
    Arm(FEW_SHOT, "prompt", Asked(lambda work, bench: few_shot(bench), Prompts((2,)))),
    Arm(
        REWORDED,
        "prompt",
        Asked(
            lambda work, bench: reworded(bench.form(FULL), bench.classes),
            Prompts((3,), optional=True),
            ZERO_SHOT,
        ),
    ),
    Arm(
        RETRIEVED,
        "prompt",
        Asked(
            lambda work, bench: retrieved_forms(bench.form(FULL), bench.form(SHORT), work.neighbours),
            Prompts((4, 2, 1), optional=True),
        ),
    ),
    Arm(
        SEARCHED,
        "prompt",
        Asked(
            lambda work, bench: searched_forms(bench, work.neighbours),
            Prompts((32, 16, 8), optional=True),
            RETRIEVED,
        ),
    ),
    Arm(
        DOCUMENTS,
        "prompt",
        Asked(lambda work, bench: documents_forms(bench.form(FULL), work.passages), Prompts((2,))),
        lambda task: task.data.documents is not None,
    ),
    Arm(LORA_SHORT, "fine-tune", Taught(SHORT), _trains_adapters),
    Arm(LORA_FULL, "fine-tune", Taught(FULL), _trains_adapters),
    Arm(LORA_FEW_SHOT, "fine-tune", Taught(SHORT, shots=8), lambda task: False),
    Arm(WEIGHTS_SHORT, "fine-tune", Taught(SHORT, all_weights=True), _trains_all),
    Arm(WEIGHTS_FULL, "fine-tune", Taught(FULL, all_weights=True), _trains_all),
    Arm(
        DISTILLED,
        "fine-tune",
        Taught(SHORT, distils=True),
        lambda task: task.data.traffic is not None and _trains_adapters(task),
    ),
)
"""Every arm that the local model and scikit-learn can be, in the order in which they run."""

ARMS = {arm.name: arm for arm in LADDER}


def known_arms(task: Task) -> dict[str, Arm]:
    """The ladder, with each prompting arm again for every provider before the trained arms, and the hosted trainings
    behind them: these go on at their endpoints while this machine trains."""
    hosted = [_at(arm, name) for name in task.providers for arm in LADDER if arm.asked]
    tuned = [_tuned_at(name) for name in task.providers]
    first_trained = next(index for index, arm in enumerate(LADDER) if arm.taught)
    return {arm.name: arm for arm in (*LADDER[:first_trained], *hosted, *LADDER[first_trained:], *tuned)}


def misfit(arm: Arm, kind: str) -> str | None:
    """Why an arm cannot do answers of `kind`, if it cannot."""
    if arm.provider is not None and kind in _NOT_HOSTED:
        return f"hosted models are not asked for answers of kind {kind} yet"
    if arm.taught and arm.taught.distils and kind in _NOT_DISTILLED:
        return f"answers of kind {kind} are not taught from requests"
    return None


def arms_of(task: Task) -> dict[str, Arm]:
    """The arms that `task` asks for, in order: all that apply, or those it names."""
    known = known_arms(task)
    if task.arms != "auto":
        return {name: arm for name, arm in known.items() if name in task.arms}
    judge = task.judge if task.judge in task.providers else None  # who judges does not take part
    return {name: arm for name, arm in known.items() if arm.auto(task) and (judge is None or arm.provider != judge)}


def _at(arm: Arm, provider: str) -> Arm:
    """`arm` for a hosted model. A search costs money, so it is made only when the task names it."""
    assert arm.asked is not None
    prompts = replace(arm.asked.prompts, optional=False)
    return replace(
        arm,
        name=f"{arm.name}{AT}{provider}",
        way=replace(arm.asked, prompts=prompts, rate_of=None),
        auto=(lambda task: False) if arm.name in (REWORDED, SEARCHED) else arm.auto,
        provider=provider,
    )


def _tuned_at(provider: str) -> Arm:
    """The fine-tuned model of a provider that the task lets train: what is paid for is never begun without that."""

    def wanted(task: Task) -> bool:
        return task.providers[provider].fine_tune is not None

    return Arm(f"{HOSTED_TUNED}{AT}{provider}", "fine-tune", TaughtThere(SHORT), wanted, provider)
