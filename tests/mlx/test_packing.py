"""Packed rows are separate rows: the same losses and gradients, nothing seen of one another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten
from test_shared_context import FAMILIES, MODELS, family, relative

from forge_cli import train
from forge_cli.core.records import Example
from forge_cli.models import attention
from forge_cli.models.backend import mx, nn
from forge_cli.models.packing import can_pack, fill_packs, pack_rows
from forge_cli.models.shared_context import Row, group_rows, token_losses
from forge_cli.train.callbacks.metrics import read_rows
from forge_cli.train.micro_batches import Batch, as_batch, plan_steps, split_batch
from tiny_train import example, save_model


def singles(weights: bool = False) -> list[Row]:
    """Five rows that share nothing, of different lengths."""
    rng = np.random.default_rng(2)
    made = []
    for length, answer in ((30, 9), (7, 3), (110, 25), (64, 1), (15, 14)):
        ids = rng.integers(0, 300, length).tolist()
        made.append(Row(ids, length - answer, rng.random(answer).tolist() if weights else ()))
    return made


@pytest.fixture(params=[True, False], ids=["attend", "MLX's attention"])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = attention.attend if request.param else attention._fused
    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", kept)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", [*MODELS, *FAMILIES])
def test_losses_and_gradients_are_those_of_separate_rows(name: str) -> None:
    model, rows = family(name), singles()

    def packed(model: nn.Module) -> mx.array:
        return token_losses(model, pack_rows(rows)).sum()

    def apart(model: nn.Module) -> mx.array:
        return mx.concatenate([token_losses(model, group_rows([row])) for row in rows]).sum()

    (one, ours), (two, theirs) = (nn.value_and_grad(model, f)(model) for f in (packed, apart))
    assert one.item() == pytest.approx(two.item(), rel=1e-5)
    for (path, a), (_, b) in zip(tree_flatten(ours), tree_flatten(theirs), strict=True):
        # Rotary angles round otherwise where positions run on.
        assert relative(a, b) < 3e-4, path
    assert can_pack(model)


def test_a_row_does_not_see_the_one_before_it() -> None:
    model, rows = family("llama"), singles()
    attention.install()
    losses = token_losses(model, pack_rows(rows))
    other = [Row([(i + 1) % 300 for i in rows[0].ids], rows[0].start), *rows[1:]]
    again = token_losses(model, pack_rows(other))
    count = rows[0].supervised
    assert mx.array_equal(losses[count:], again[count:])
    assert not mx.allclose(losses[:count], again[:count])


def test_the_mask_as_an_array() -> None:
    seen = np.array(attention.Packed((2, 3)).visible())
    expected = np.zeros((5, 5), bool)
    expected[:2, :2], expected[2:, 2:] = np.tri(2, dtype=bool), np.tri(3, dtype=bool)
    assert (seen == expected).all()
    narrow = np.array(attention.Packed((2, 3)).visible(window=2))
    expected[4, 2] = False
    assert (narrow == expected).all()


def test_weights_and_parts_of_a_pack() -> None:
    model, rows = family("llama"), singles(weights=True)
    whole = as_batch(pack_rows(rows), list("abcde"))
    losses = token_losses(model, whole.data)
    parts = split_batch(whole, 120)
    assert [name for part in parts for name in part.ids] == list("abcde")
    assert len(parts) > 1 and max(part.tokens for part in parts) <= 120
    found = mx.concatenate([token_losses(model, part.data) for part in parts])
    assert mx.allclose(found, losses, atol=1e-5)
    weights = mx.concatenate([part.data.weights for part in parts])
    assert mx.array_equal(weights, whole.data.weights)


def test_packs_hold_each_row_once_and_no_more_than_there_is_room() -> None:
    sizes = np.random.default_rng(0).integers(10, 400, 200).tolist()
    packs = fill_packs([*sizes, 900], 512)
    assert sorted(index for pack in packs for index in pack) == list(range(201))
    assert [200] in packs, "a row that is too long has one to itself"
    filled = [sum(sizes[i] for i in pack) for pack in packs if pack != [200]]
    assert max(filled) <= 512 and sum(filled) / len(filled) > 0.9 * 512


class Absolute(nn.Module):
    """Learned positions, which packing would put elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(300, 16)
        self.positions = nn.Embedding(512, 16)
        self.layers: list[nn.Module] = [nn.Linear(16, 16)]

    def __call__(self, ids: mx.array, cache: object = None) -> mx.array:
        return self.layers[0](self.embed_tokens(ids) + self.positions(mx.arange(ids.shape[1])))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Absolute()

    @property
    def layers(self) -> list[nn.Module]:
        return self.model.layers

    def __call__(self, ids: mx.array) -> mx.array:
        return self.model.embed_tokens.as_linear(self.model(ids))


def test_absolute_positions_are_not_packed() -> None:
    model = Model()
    model.freeze()
    assert not can_pack(model)


def rows_of_files(count: int) -> list[Example]:
    """Rows that each have a context of their own, and two contexts of three rows."""
    alone = [example(10 + number, 0, size=1 + number % 5) for number in range(count)]
    shared = [example(context, question) for context in range(2) for question in range(3)]
    return [*alone, *shared, example(7, 0, "valid")]


def test_training_packs_rows_and_learns_the_same(tmp_path: Path) -> None:
    model = str(save_model(tmp_path / "model"))
    settings: dict[str, Any] = {
        "model": model, "rank": 4, "layers": 0, "targets": ("q_proj", "down_proj"), "bits": 16,
        "learning_rate": 1e-3, "valid_every": 50, "max_tokens": 512,
        "steps": 2, "step_tokens": 10**6,
    }  # fmt: skip
    found = {}
    for packing in (True, False):
        out = tmp_path / str(packing)
        # A step over all rows, so that both ways take the same steps.
        train.run(rows_of_files(9), out=out, packing=packing, **settings)
        found[packing] = [row for row in read_rows(out) if "loss" in row]
    assert len(found[True]) == 2
    for packed, apart in zip(found[True], found[False], strict=True):
        assert packed["loss"] == pytest.approx(apart["loss"], rel=1e-5)
        assert packed["supervised_tokens"] == apart["supervised_tokens"]


def test_a_step_takes_the_batches_that_its_tokens_allow() -> None:
    sizes = np.random.default_rng(5).integers(20, 300, 40).tolist()
    batches = [Batch(None, (str(i),), size, 1, size) for i, size in enumerate([*sizes, 900])]
    settings: dict[str, Any] = {"accumulate": 1, "seed": 3, "step_tokens": 600}
    plan = plan_steps(batches, steps=None, epochs=2.0, **settings)
    names = [name for step in plan for batch in step for name in batch.ids]
    for half in (names[:41], names[41:]):
        assert sorted(half, key=int) == [str(i) for i in range(41)], "each row once an epoch"
    sums = [sum(batch.tokens for batch in step) for step in plan]
    assert all(total <= 600 or len(step) == 1 for total, step in zip(sums, plan, strict=True))
    # What ends a step is the next batch, or the end of the pass.
    ends = {sum(len(step) for step in plan[: n + 1]) for n in range(len(plan))}
    assert {41, 82} <= ends
    follows = [step[0].tokens for step in plan[1:]]
    full = [total + first > 600 for total, first in zip(sums, follows, strict=False)]
    assert full.count(False) <= 1
    assert plan_steps(batches, steps=None, epochs=2.0, **settings) == plan
    assert plan_steps(batches, steps=5, epochs=1.0, **settings) == plan[:5]
    assert len(plan_steps(batches, steps=200, epochs=1.0, **settings)) == 200
