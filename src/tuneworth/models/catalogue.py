"""The catalogue of open models: what is known of each before anything is downloaded. Data in catalogue.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from tuneworth.models.architecture import Architecture

USES = ("commercial", "research")


@dataclass(frozen=True, slots=True)
class Licence:
    """Whether use for money is allowed, and what limits there are, in a sentence."""

    id: str
    is_commercial: bool
    limits: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue. What is not known for sure is None.

    `hub` is the repository of the weights that are used, `base_hub` that of the pre-trained ones without instructions;
    `stated_parameters` is what the maker says, `architecture.parameters` what follows from the layers.
    """

    id: str
    hub: str
    base_hub: str | None
    stated_parameters: int
    architecture: Architecture
    licence: Licence
    languages: tuple[str, ...]
    has_template: bool
    calls_tools: bool | None
    is_gated: bool | None
    is_embedded: bool
    released: str

    @property
    def source(self) -> str:
        """Where it comes from: the package index for the embedded model, else a hub repository."""
        return "package index" if self.is_embedded else f"hub: {self.hub}"

    def to_json(self) -> dict[str, Any]:
        """An object of `tuneworth models --json`."""
        return {
            "id": self.id,
            "hub": self.hub,
            "base_hub": self.base_hub,
            "source": self.source,
            "parameters": self.architecture.parameters,
            "architecture": self.architecture.to_json(),
            "licence": self.licence.id,
            "commercial_use": self.licence.is_commercial,
            "licence_limits": self.licence.limits,
            "languages": list(self.languages),
            "chat_template": self.has_template,
            "tools": self.calls_tools,
            "gated": self.is_gated,
            "released": self.released,
            "unsupported": self.architecture.traits.unsupported or None,
        }


@dataclass(frozen=True, slots=True)
class Wish:
    """What a model must be; fields that are None do not matter. A fact that is not known does not meet a wish."""

    licence: str | None = None
    use: str | None = None
    most_parameters: float | None = None
    least_context: int | None = None
    needs_tools: bool = False
    needs_template: bool = False
    language: str | None = None


def catalogue() -> tuple[Entry, ...]:
    """Every model, the smallest first."""
    return _read()[1]


def as_of() -> str:
    """The day on which the catalogue was looked over (ISO 8601)."""
    return _read()[0]


def entry_of(model: str) -> Entry | None:
    """The entry with this id, or with this hub repository."""
    wanted = model.lower()
    return next((e for e in catalogue() if wanted in (e.id, e.hub.lower(), (e.base_hub or "").lower())), None)


def matching(wish: Wish, entries: Sequence[Entry] | None = None) -> tuple[Entry, ...]:
    """The models that are as wished."""
    return tuple(entry for entry in entries or catalogue() if not unmet(entry, wish))


def unmet(entry: Entry, wish: Wish) -> list[str]:
    """What of `wish` the model is not, each in a few words."""
    facts = entry.architecture
    checks: list[tuple[bool, Callable[[], str]]] = [
        (wish.licence is None or wish.licence == entry.licence.id, lambda: f"its licence is {entry.licence.id}"),
        (
            wish.use != "commercial" or entry.licence.is_commercial,
            lambda: f"its licence ({entry.licence.id}) forbids commercial use: {entry.licence.limits}",
        ),
        (
            wish.most_parameters is None or facts.parameters <= wish.most_parameters,
            lambda: f"it has {facts.parameters / 1e6:,.0f} M parameters",
        ),
        (
            wish.least_context is None or facts.context >= wish.least_context,
            lambda: f"its context holds {facts.context:,} tokens",
        ),
        (not wish.needs_tools or entry.calls_tools is True, lambda: "it is not known to call tools"),
        (not wish.needs_template or entry.has_template, lambda: "it has no chat template"),
        (
            wish.language is None or {wish.language, "multilingual"} & set(entry.languages) != set(),
            lambda: f"its languages are {', '.join(entry.languages)}",
        ),
    ]
    return [why() for is_met, why in checks if not is_met]


@cache
def _read() -> tuple[str, tuple[Entry, ...]]:
    text = files("tuneworth.models").joinpath("catalogue.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    licences = {
        name: Licence(name, bool(found["commercial"]), str(found["limits"]))
        for name, found in content["licences"].items()
    }
    entries = [
        Entry(
            id=found["id"],
            hub=found.get("hub", found.get("base_hub", "")),
            base_hub=found.get("base_hub"),
            stated_parameters=round(found["million_parameters"] * 1e6),
            architecture=Architecture.of(found["architecture"]),
            licence=licences[found["licence"]],
            languages=tuple(found["languages"]),
            has_template=found["has_template"],
            calls_tools=found.get("calls_tools"),
            is_gated=found.get("is_gated"),
            is_embedded=found.get("is_embedded", False),
            released=found["released"],
        )
        for found in content["models"]
    ]
    return str(content["as_of"]), tuple(sorted(entries, key=lambda entry: entry.architecture.parameters))
