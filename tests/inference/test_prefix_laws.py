"""Kept beginnings: the same answers with them, inside their memory, and gone when the weights change."""

from __future__ import annotations

import gc
import random
from pathlib import Path

import pytest
import torch

from tiny import KINDS, plain_greedy, plain_twin, random_ids, saved_adapters, tiny_model
from tuneworth.inference import Engine, Request
from tuneworth.inference.cache import Prefix, token_bytes
from tuneworth.inference.prefixes import PrefixTree
from tuneworth.models.adapters import add_adapter, add_lora, load_adapter, remove_adapter
from tuneworth.models.packed import PackedDecoder, PlainDecoder

NEVER = 10**6


def part_of(tokens: list[int], start: int = 0) -> Prefix:
    """Keys and values that are the tokens themselves, so that a wrong place shows."""
    values = torch.tensor(tokens[start:], dtype=torch.float64).view(1, -1, 1)
    return Prefix(len(tokens) - start, (values, 2 * values), (-values, values + 0.5))


def same(found: Prefix, wanted: Prefix) -> bool:
    pairs = zip((*found.keys, *found.values), (*wanted.keys, *wanted.values), strict=False)
    return found.tokens == wanted.tokens and all(torch.equal(a, b) for a, b in pairs)


def test_the_tree_gives_back_the_longest_beginning_for_random_sequences() -> None:
    chance, tree = random.Random(0), PrefixTree(1 << 30)
    held: list[list[int]] = []
    for _ in range(200):
        tokens = [chance.randrange(2) for _ in range(chance.randrange(1, 12))]
        known = tree.matched(tokens)
        agreed = [next((i for i, (a, b) in enumerate(zip(h, tokens, strict=False)) if a != b), min(len(h), len(tokens)))
                  for h in held]  # fmt: skip
        assert known == max(agreed, default=0)
        assert same(tree.longest(tokens), part_of(tokens[:known]) if known else Prefix.empty())
        tree.insert(tokens, known, part_of(tokens, known))
        held.append(tokens)
        assert tree.matched(tokens) == len(tokens)
    stretches = {tuple(h[: n + 1]) for h in held for n in range(len(h))}
    assert tree.size_bytes == len(stretches) * 4 * 8  # each token once, in 2 layers of keys and values


def test_the_tree_stays_inside_its_memory_and_lets_the_least_used_go() -> None:
    tree = PrefixTree(10 * 32)
    tree.insert([1, 2, 3, 4], 0, part_of([1, 2, 3, 4]))
    tree.insert([5, 6, 7, 8], 0, part_of([5, 6, 7, 8]))
    tree.matched([1, 2, 3, 4])
    tree.insert([9, 10, 11], 0, part_of([9, 10, 11]))
    assert tree.size_bytes <= 320
    assert (tree.matched([1, 2, 3, 4]), tree.matched([5, 6, 7, 8]), tree.matched([9, 10, 11])) == (4, 0, 3)
    tree.insert(list(range(100, 200)), 0, part_of(list(range(100, 200))))
    assert tree.size_bytes <= 320


def test_what_one_adapter_computed_is_not_anothers() -> None:
    tree = PrefixTree(1 << 20)
    tree.insert([1, 2], 0, part_of([1, 2]), "a")
    assert (tree.matched([1, 2], "a"), tree.matched([1, 2], "b"), tree.matched([1, 2])) == (2, 0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_law_34_answers_are_the_same_whatever_earlier_requests_left(kind: str) -> None:
    model = tiny_model(kind)
    twin, engine, chance = plain_twin(model), Engine(model, end_id=NEVER), random.Random(3)
    common = random_ids(40, seed=5)
    for _ in range(12):
        prompts = [
            [*common[: chance.randrange(41)], *random_ids(chance.randrange(1, 9), seed=chance.randrange(9))]
            for _ in range(chance.randrange(1, 4))
        ]
        requests = [Request(prompt, 4, remember=chance.random() < 0.6) for prompt in prompts]
        found = engine.answer(requests)
        assert [list(answer.ids) for answer in found] == [plain_greedy(twin, prompt, 4) for prompt in prompts]


def test_law_34_a_conversation_goes_on_from_what_was_computed() -> None:
    model = tiny_model()
    engine, prompt = Engine(model, end_id=NEVER), random_ids(60, seed=1)
    answer = list(engine.stream(Request(prompt, 5, remember=True)))
    fed: list[int] = []
    decoder = engine._decoder
    engine._decoder = type("Counting", (), {  # type: ignore[assignment]
        "__call__": lambda self, ids, *a, **k: (fed.append(len(ids)), decoder(ids, *a, **k))[1],
        "refresh": lambda self: decoder.refresh(),
    })()  # fmt: skip
    following = [*prompt, *answer, *random_ids(6, seed=2)]
    found = list(engine.stream(Request(following, 3)))
    assert found == plain_greedy(plain_twin(model), following, 3)
    assert fed[0] == 7  # the last token of the answer was never read, and six are new


def test_kept_beginnings_go_when_weights_change_in_place_or_an_adapter_comes_or_goes(tmp_path: Path) -> None:
    model = tiny_model()
    prompts = [[*random_ids(30, seed=4), 5, n] for n in range(3)]

    def check(engine: Engine, plain: torch.nn.Module) -> list[list[int]]:
        found = [list(answer.ids) for answer in engine.generate(prompts, max_new_tokens=5)]
        fresh = Engine(plain, end_id=NEVER).generate(prompts, max_new_tokens=5)
        assert found == [list(answer.ids) for answer in fresh]
        return found

    engine = Engine(model, end_id=NEVER)
    before = check(engine, model)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(-1.5)
    assert check(engine, model) != before
    tuned = add_lora(model, rank=2, alpha=8, seed=0)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    changed = check(Engine(tuned, end_id=NEVER), tuned)
    back = remove_adapter(tuned)
    assert check(engine, back) != changed


def test_memory_stays_inside_the_bound_and_many_prompts_leak_nothing() -> None:
    """10,000 short prompts, each remembered."""
    model = tiny_model(dtype=torch.float32)
    bound = 400 * token_bytes(model.config, torch.float32)
    engine = Engine(model, end_id=NEVER, cache_bytes=bound)
    chance = random.Random(0)

    def ask(calls: int) -> None:
        for _ in range(calls):
            prompts = [[chance.randrange(300) for _ in range(chance.randrange(1, 6))] for _ in range(40)]
            engine.answer([Request(prompt, 1, remember=True) for prompt in prompts])
            assert engine._prefixes.size_bytes <= bound // 2

    ask(50)
    before = tensor_bytes()
    ask(200)
    assert tensor_bytes() <= before + bound  # rows and beginnings may be fuller than they were


def tensor_bytes() -> int:
    """Memory of all tensors that anybody still holds."""
    gc.collect()
    tensors = [x for x in gc.get_objects() if type(x) is torch.Tensor and not x.is_mkldnn]
    held = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(held.values())


def test_rows_wait_when_their_cache_would_be_over_its_bound() -> None:
    model = tiny_model()
    prompts = [random_ids(10, seed=n) for n in range(9)]
    a_token = token_bytes(model.config, torch.float64)
    engine = Engine(model, end_id=NEVER, cache_bytes=2 * 3 * 14 * a_token)
    batch = engine.batch([])
    for prompt in prompts:
        batch.add(Request(prompt, 4))
    most, done = 0, 0
    while batch.busy:
        done += sum(step.done is not None for step in batch.step())
        most = max(most, len(batch._rows))
    assert (done, most) == (9, 3)


@pytest.mark.parametrize("kind", ["gqa", "mha", "window", "bias", "head norms", "alternating"])
def test_law_6_packed_weights_give_the_models_own_logits(kind: str) -> None:
    """In float32, where weights are packed; float64 takes plain products."""
    model = tiny_model(kind, dtype=torch.float32)
    exact = plain_twin(tiny_model(kind))
    engine = Engine(model, end_id=NEVER)
    assert isinstance(engine._decoder, PackedDecoder)
    prompts = [random_ids(n, seed=n) for n in (3, 9, 17)]
    found = engine.generate(prompts, max_new_tokens=6)
    assert [list(answer.ids) for answer in found] == [plain_greedy(exact, prompt, 6) for prompt in prompts]


def test_a_family_that_is_not_known_answers_by_its_own_forward_pass() -> None:
    assert isinstance(Engine(tiny_model("other"), end_id=NEVER)._decoder, PlainDecoder)


def test_adapters_are_mixed_in_one_batch_without_touching_each_other(tmp_path: Path) -> None:
    prompts = [[*random_ids(8, seed=4), n] for n in range(6)]
    alone: dict[str, list[list[int]]] = {"": _answers(Engine(tiny_model(), end_id=NEVER), prompts)}
    saved_adapters(tmp_path)
    for name in ("a", "b"):
        alone[name] = _answers(Engine(load_adapter(tiny_model(), tmp_path / name), end_id=NEVER), prompts)
    both = load_adapter(tiny_model(), tmp_path / "a", name="a")
    engine = Engine(both, end_id=NEVER)
    assert _answers(engine, prompts) == alone["a"]
    add_adapter(both, tmp_path / "b", "b")
    wanted = ["a", "b", "", "b", "a", ""]
    for _ in range(2):
        requests = [Request(prompt, 5, adapter=name) for prompt, name in zip(prompts, wanted, strict=True)]
        found = engine.answer(requests)
        assert [list(answer.ids) for answer in found] == [alone[name][n] for n, name in enumerate(wanted)]
    assert alone["a"] != alone["b"] != alone[""]
    for name in ("b", "", "a"):
        assert _answers(engine, prompts, name) == alone[name]


def _answers(engine: Engine, prompts: list[list[int]], adapter: str | None = None) -> list[list[int]]:
    return [list(answer.ids) for answer in engine.answer([Request(prompt, 5, adapter=adapter) for prompt in prompts])]
