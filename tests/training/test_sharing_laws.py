"""LAW 3 for whatever `pack` shares: the loss and every gradient of packed rows are those of each row alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from by_hand import UNEVEN, first_gradients, hand_gradients, hand_loss

from tiny import KINDS, all_parameters, close, plain_twin, random_ids, random_row, tiny_model
from tuneworth.models import rows as rows_layout
from tuneworth.training import Row, answer_loss, batches, pack

SYSTEM, OTHER = random_ids(9, seed=90), random_ids(6, seed=91)


def behind(name: str, beginning: Sequence[int], *shapes: tuple[int, int]) -> list[Row]:
    """Rows of (prompt, answer) tokens behind one beginning."""
    return [random_row(f"{name}{i}", p, a, 7 * len(name) + i, beginning) for i, (p, a) in enumerate(shapes)]


def pair(name: str, prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int]) -> list[Row]:
    """Two answers to one prompt."""
    return [
        Row(f"{name}{kind}", (*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))
        for kind, answer in (("+", chosen), ("-", rejected))
    ]


QUESTION = [*SYSTEM, *random_ids(5, seed=92)]
BATCHES = {
    "none": [random_row(f"{i}", 3 + i, 2 + i % 3, i) for i in range(4)],
    "one": behind("a", SYSTEM, (3, 2), (1, 6), (8, 1), (2, 2)),
    "several": [*behind("a", SYSTEM, (3, 2), (1, 6)), *behind("bb", OTHER, (4, 3), (2, 1)), random_row("c", 4, 2, 5)],
    "nested": [*behind("a", SYSTEM, (3, 2), (4, 1)), *behind("bb", QUESTION, (1, 3), (4, 2), (2, 5))],
    "one row is the prefix of others": [
        Row("short", tuple(QUESTION), (False,) * 12 + (True,) * 2),
        *behind("a", QUESTION, (1, 3), (2, 2)),
    ],
    "pairs": [
        *pair("p", QUESTION, random_ids(4, 1), random_ids(2, 2)),
        *pair("q", [*SYSTEM, *random_ids(7, 93)], random_ids(1, 3), random_ids(6, 4)),
        *pair("r", OTHER, [5, 6, 7, 8], [5, 6, 9]),  # the answers begin alike
    ],
    "equal rows": [*behind("a", SYSTEM, (3, 2)), *behind("a", SYSTEM, (3, 2))],
    "trained from the first token on": [Row("a", (1, 2, 3), (True,) * 3), Row("b", (1, 2, 4), (True,) * 3)],
}


@pytest.mark.parametrize(
    ("block", "filled_to", "worth_a_band"), [(256, 1, 1 << 17), (2, 1, 1 << 17), (256, 32, 1), (2, 7, 0)]
)
@pytest.mark.parametrize("worth", [1, 32])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("kind", KINDS)
def test_law_3_and_30_a_packs_loss_and_gradients_are_those_of_its_rows_alone(
    kind: str, batch: str, worth: int, block: int, filled_to: int, worth_a_band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_layout, "_BLOCK_TOKENS", block)
    monkeypatch.setattr(rows_layout, "_WORTH_A_BAND", worth_a_band)
    monkeypatch.setattr(batches, "_WORTH_SHARING", worth)
    rows = BATCHES[batch]
    model = tiny_model(kind)
    wanted = hand_gradients(model, rows)
    trained = sum(row.trained_tokens for row in rows)
    parameters = all_parameters(model)
    packed = pack(rows, filled_to=filled_to)
    loss = answer_loss(model, packed)
    (loss / trained).backward()
    with torch.no_grad():
        assert close(loss, hand_loss(plain_twin(model), rows))
    assert packed.count == trained
    assert packed.ids.shape[1] - packed.filler <= sum(len(row.ids) for row in rows)
    assert packed.ids.shape[1] % filled_to == 0 and 0 <= packed.filler < filled_to
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        assert close(parameter.grad, wanted[name]), name


def test_beginnings_that_some_rows_share_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_WORTH_SHARING", 1)
    rows = BATCHES["nested"]  # all behind 9 tokens, three of them behind 5 more
    packed = pack(rows)
    assert packed.layout.prefix_tokens == len(SYSTEM)
    assert len(packed.layout.bands) == 3
    assert packed.ids.shape[1] == sum(len(row.ids) - 1 for row in rows) - 4 * len(SYSTEM) - 2 * 5
    monkeypatch.setattr(batches, "_WORTH_SHARING", 6)
    assert len(pack(rows).layout.bands) == 2


def test_few_long_rows_beside_many_short_ones_stand_in_a_band_of_their_own() -> None:
    short, long = ([random_row(f"{n}/{i}", n, 2, i) for i in range(rows)] for n, rows in ((20, 30), (400, 2)))
    bands = pack([*short, *long]).layout.bands
    assert [band.rows for band in bands] == [30, 2]
    assert bands[0].longest < 25 and bands[1].longest > 400
    assert len(pack(short).layout.bands) == 1


@pytest.mark.parametrize("batch", BATCHES)
def test_law_1_and_3_accumulation_gives_the_gradients_of_its_rows_alone(batch: str) -> None:
    rows = [*BATCHES[batch], *UNEVEN]
    wanted = hand_gradients(tiny_model(), rows)
    for maximum_tokens in (1, 130):
        found = first_gradients(tiny_model(), rows, {"maximum_tokens": maximum_tokens})
        assert all(close(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("batch", BATCHES)
def test_law_31_each_target_belongs_to_its_row_and_is_predicted_by_the_token_before_it(batch: str) -> None:
    rows = BATCHES[batch]
    packed = pack(rows)
    assert packed.row_ids == tuple(row.id for row in rows)
    ids, places = packed.ids[0].tolist(), packed.positions[0].tolist()
    for number, row in enumerate(rows):
        mine = packed.owner == number
        answer = [token for token, trained in list(zip(row.ids, row.trained, strict=True))[1:] if trained]
        assert packed.target[mine].tolist() == answer
        before = [index - 1 for index, trained in enumerate(row.trained) if trained and index]
        assert [places[source] for source in packed.source[mine].tolist()] == before
        assert [ids[source] for source in packed.source[mine].tolist()] == [row.ids[index] for index in before]
