"""The catalogue's facts agree with themselves and with transformers; wishes are met or said not to be."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tuneworth.errors import InputError
from tuneworth.models.architecture import Architecture
from tuneworth.models.catalogue import Entry, Wish, as_of, catalogue, entry_of, matching, unmet

ALL = catalogue()


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.id)
def test_the_parameter_count_that_follows_from_the_layers_is_the_stated_one(entry: Entry) -> None:
    assert entry.architecture.parameters == pytest.approx(entry.stated_parameters, rel=0.01)
    assert re.fullmatch(r"[a-z0-9.-]+", entry.id)
    assert entry.hub.count("/") == 1
    assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", entry.released)


def test_ids_are_unique_and_the_catalogue_is_dated_and_spans_the_sizes() -> None:
    assert len({entry.id for entry in ALL}) == len(ALL) >= 40
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", as_of())
    sizes = [entry.architecture.parameters for entry in ALL]
    assert sizes == sorted(sizes)
    assert sizes[0] < 2e8
    assert sizes[-1] > 6e10


FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {}, "mistral": {}, "qwen2": {}, "qwen3": {"head_dim": 12}, "gemma2": {"head_dim": 12},
    "gemma3_text": {"head_dim": 12}, "olmo2": {}, "granite": {}, "smollm3": {"pad_token_id": 0},
    "phi3": {"pad_token_id": 0}, "phi": {},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("is_tied", [True, False])
def test_the_parameter_count_of_every_family_is_that_of_transformers_own_model(family: str, is_tied: bool) -> None:
    config = AutoConfig.for_model(
        family, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, vocab_size=100,
        **({"num_key_value_heads": 2} if family != "phi" else {}), tie_word_embeddings=is_tied, **FAMILIES[family],
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    found = Architecture.of_config(config.to_dict(), "config.json")
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.family == family


def test_a_configuration_that_lacks_what_is_needed_names_the_keys() -> None:
    with pytest.raises(InputError, match="hidden_size, vocab_size") as caught:
        Architecture.of_config(
            {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 9, "vocab_size": -1}, "here"
        )
    assert "here" in str(caught.value)


def test_models_are_found_by_id_and_by_their_hub_repository() -> None:
    assert entry_of("qwen3-0.6b") is entry_of("Qwen/Qwen3-0.6B") is entry_of("qwen/qwen3-0.6b-base")
    assert entry_of("qwen4") is None


@pytest.mark.parametrize(
    ("wish", "count_below", "told"),
    [
        (Wish(licence="mit"), 10, "its licence is"),
        (Wish(use="commercial"), len(ALL), "forbids commercial use"),
        (Wish(most_parameters=5e8), 8, "M parameters"),
        (Wish(least_context=100_000), 20, "its context holds"),
        (Wish(needs_tools=True), 35, "not known to call tools"),
        (Wish(needs_template=True), len(ALL), "no chat template"),
        (Wish(language="ja"), 30, "its languages are"),
    ],
)
def test_a_wish_leaves_models_out_and_says_why(wish: Wish, count_below: int, told: str) -> None:
    met = matching(wish)
    assert 0 < len(met) < count_below
    others = [entry for entry in ALL if entry not in met]
    assert all(told in unmet(entry, wish)[0] for entry in others)


def test_without_a_wish_all_models_are_listed() -> None:
    assert matching(Wish()) == ALL
