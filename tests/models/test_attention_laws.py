"""Packed, prefix-shared attention is the same model: against transformers' own forward pass, row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tiny import KINDS, all_parameters, close, plain_logits, plain_twin, random_ids, random_row, tiny_model
from tuneworth.errors import InputError
from tuneworth.models import attention
from tuneworth.models import rows as layouts
from tuneworth.models.rows import Tree
from tuneworth.training import Pack, Row, answer_loss, pack


def packed_logits(model: torch.nn.Module, packed: Pack) -> Tensor:
    return model(input_ids=packed.ids, position_ids=packed.positions, layout=packed.layout, use_cache=False).logits[0]


def needed(row: Row) -> int:
    """Tokens of a row that are computed: up to the last one that predicts, all if the row trains nothing."""
    return len(row.ids) - 1 if any(row.trained) else len(row.ids)


def per_row(logits: Tensor, prefix: int, rows: list[Row]) -> list[Tensor]:
    """[T, V] of a pack becomes one [needed tokens of the row, V] each, the prefix in front of every row."""
    lengths = [needed(row) - prefix for row in rows]
    return [torch.cat([logits[:prefix], part]) for part in logits[prefix:].split(lengths)]


def rows_behind(shared: int, lengths: tuple[int, ...]) -> list[Row]:
    """Rows of these lengths behind `shared` common tokens; their first own tokens differ."""
    common = random_ids(shared, seed=100)
    rows = []
    for index, length in enumerate(lengths):
        own = [200 + index, *random_ids(length - 1, seed=index)]
        trained = (False,) * (shared + 1) + (True,) * (length - 1)
        rows.append(Row(f"row {index}", (*common, *own), trained))
    return rows


@pytest.mark.parametrize("bounds", [(256, 1024), (2, 1024), (256, 0)], ids=["plain", "blocks", "fused"])
@pytest.mark.parametrize("shared", [0, 1, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_law_3_and_30_packed_logits_equal_each_row_alone(
    kind: str, shared: int, bounds: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "_BLOCK_TOKENS", bounds[0])
    monkeypatch.setattr(layouts, "_PLAIN_TOKENS", bounds[1])
    model = tiny_model(kind)
    twin = plain_twin(model)
    rows = rows_behind(shared, (3, 14, 2, 7))
    packed = pack(rows)
    assert packed.layout.prefix_tokens == shared
    with torch.no_grad():
        found = per_row(packed_logits(model, packed), shared, rows)
        for row, logits in zip(rows, found, strict=True):
            assert close(logits, plain_logits(twin, row.ids)[: needed(row)])


def test_packed_logits_equal_transformers_eager_attention() -> None:
    model = tiny_model("gqa")
    twin = plain_twin(model, "eager")  # its softmax is float32, hence the tolerance
    rows = rows_behind(4, (3, 14, 2, 7))
    with torch.no_grad():
        for row, logits in zip(rows, per_row(packed_logits(model, pack(rows)), 4, rows), strict=True):
            assert close(logits, plain_logits(twin, row.ids)[: needed(row)], 1e-5)


@pytest.mark.parametrize("kind", ["gqa", "window"])
def test_rows_longer_than_the_real_threshold_take_the_fused_path_and_agree(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fused = layouts.scaled_dot_product_attention

    def counted(*args: object, **options: object) -> Tensor:
        calls.append(args)
        return fused(*args, **options)

    monkeypatch.setattr(layouts, "scaled_dot_product_attention", counted)
    model = tiny_model(kind)
    rows = rows_behind(5, (layouts._PLAIN_TOKENS + 3, 12))
    with torch.no_grad():
        found = per_row(packed_logits(model, pack(rows)), 5, rows)
        # In each of two layers the long row; behind a window also the beginning and the short row.
        assert len(calls) == (6 if kind == "window" else 2)
        twin = plain_twin(model)
        for row, logits in zip(rows, found, strict=True):
            assert close(logits, plain_logits(twin, row.ids)[: needed(row)])


@pytest.mark.parametrize("bounds", [(256, 1024), (2, 1024), (256, 0)], ids=["plain", "blocks", "fused"])
@pytest.mark.parametrize("kind", KINDS)
def test_law_30_another_row_changes_neither_logits_nor_gradients(
    kind: str, bounds: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "_BLOCK_TOKENS", bounds[0])
    monkeypatch.setattr(layouts, "_PLAIN_TOKENS", bounds[1])
    model = tiny_model(kind)
    parameters = all_parameters(model)
    common = random_ids(5, seed=9)
    watched = Row("b", (*common, 7, *random_ids(6, seed=1)), (False,) * 6 + (True,) * 6)
    outcomes = []
    for seed in (11, 12):
        # The other row comes first, has another length, and trains nothing: what it gives b would be a leak.
        other = Row("a", (*common, 20 + seed, *random_ids(seed, seed)), (False,) * (6 + seed))
        packed = pack([other, watched])
        assert packed.layout.prefix_tokens == 5
        logits = per_row(packed_logits(model, packed), 5, [other, watched])[1]
        answer_loss(model, packed).backward()
        gradients = {}
        for name, parameter in parameters.items():
            gradients[name], parameter.grad = parameter.grad, None
        outcomes.append((logits, gradients))
    (first, first_gradients), (second, second_gradients) = outcomes
    assert close(first, second)
    assert all(close(first_gradients[name], second_gradients[name]) for name in parameters)
    assert sum(float(g.abs().sum()) for g in first_gradients.values()) > 0


def test_law_31_no_trained_token_is_predicted_across_a_border() -> None:
    rows = [random_row("a", 3, 4, 1), random_row("b", 2, 5, 2), random_row("c", 6, 1, 3)]
    packed = pack(rows, share=False)
    ids, positions = packed.ids[0].tolist(), packed.positions[0].tolist()
    assert positions == [*range(6), *range(6), *range(6)]
    for source, target, owner in zip(*(x.tolist() for x in (packed.source, packed.target, packed.owner)), strict=True):
        row, place = rows[owner], positions[source]
        assert (ids[source], target) == (row.ids[place], row.ids[place + 1])
    assert len(packed.target) == sum(row.trained_tokens for row in rows)


def test_law_31_a_row_trained_from_its_first_token_on_predicts_from_inside_itself() -> None:
    rows = [Row("a", (1, 2, 3), (True, True, True)), Row("b", (4, 5, 6), (True, True, True))]
    packed = pack(rows)
    assert packed.ids[0].tolist() == [1, 2, 4, 5]
    assert packed.source.tolist() == [0, 1, 2, 3]
    assert packed.target.tolist() == [2, 3, 5, 6]


def test_law_16_a_pack_holds_the_needed_tokens_and_no_padding() -> None:
    rows = rows_behind(6, (3, 14, 2, 7))  # of each the last token predicts nothing
    packed = pack(rows)
    assert packed.ids.shape == packed.positions.shape == (1, 6 + 2 + 13 + 1 + 6)
    assert packed.positions[0].tolist() == [*range(6), *(6 + i for n in (2, 13, 1, 6) for i in range(n))]


def test_tokens_behind_the_last_trained_one_are_not_computed() -> None:
    row = Row("a", (1, 2, 3, 4, 5, 6), (False, False, True, True, False, False))
    packed = pack([row])
    assert packed.ids[0].tolist() == [1, 2, 3]
    assert packed.target.tolist() == [3, 4]


def test_a_shared_prefix_leaves_every_row_the_token_that_predicts_its_first_trained_one() -> None:
    same = random_ids(8, seed=0)
    rows = [
        Row("a", (*same, 1), (False,) * 5 + (True,) * 4),
        Row("b", (*same, 2), (False,) * 7 + (True,) * 2),
        Row("c", tuple(same), (False,) * 6 + (True,) * 2),
    ]
    packed = pack(rows)
    assert packed.layout.prefix_tokens == 4
    assert len(packed.target) == 4 + 2 + 2


def test_identical_rows_share_and_still_each_count() -> None:
    model = tiny_model()
    row = random_row("a", 4, 3, 1)
    with torch.no_grad():
        once = answer_loss(model, pack([row]))
        assert close(answer_loss(model, pack([row, row, row])), 3 * once)


def test_a_layout_of_prefix_alone_is_plain_causal_attention() -> None:
    model = tiny_model()
    ids = random_ids(10, seed=4)
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([ids]),
            position_ids=torch.arange(10)[None],
            layout=Tree.of(10, []),
            use_cache=False,
        ).logits[0]
        assert close(logits, plain_logits(plain_twin(model), ids))


def test_a_call_without_layout_is_refused() -> None:
    with pytest.raises(TypeError, match="layout"):
        tiny_model()(input_ids=torch.tensor([[1, 2]]), use_cache=False)


@pytest.mark.parametrize("feature", [{"softcap": 30.0}, {"s_aux": torch.zeros(4)}, {"dropout": 0.1}])
def test_attention_that_is_not_supported_is_refused_by_name(feature: dict[str, object]) -> None:
    q = torch.zeros(1, 4, 3, 8)
    with pytest.raises(InputError, match=next(iter(feature))):
        attention._attention(torch.nn.Module(), q, q, q, None, layout=Tree.of(0, [3]), **feature)  # type: ignore[arg-type]
