"""Rows that share a context: the loss and gradients of separate rows, for less work."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

from forge_cli.models import attention
from forge_cli.models.backend import mx, nn
from forge_cli.models.row_losses import runs_apart
from forge_cli.models.shared_context import (
    _PASS,
    Group,
    Row,
    buckets,
    check_model,
    group_rows,
    lm_head,
    token_losses,
)
from tiny_train import random_model

PREFIX = 90
SLIDING = {
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    "sliding_window": 24,
}
MODELS = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, sliding window": ("llama", SLIDING),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
}


# Families that random_model does not know: their modules of mlx-lm, with small sizes.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("gemma", {}),
    "gemma2, capped logits": ("gemma2", {}),
    "gemma3": ("gemma3_text", {"sliding_window": 512, "query_pre_attn_scalar": 16}),
    "gemma3, sliding window": ("gemma3_text", {"sliding_window": 24, "query_pre_attn_scalar": 16}),
    "phi3": ("phi3", {}),
    "cohere, scaled logits": ("cohere", {}),
    "granite, divided logits": ("granite", {
        "logits_scaling": 8.0, "attention_multiplier": 0.2, "embedding_multiplier": 12.0,
        "residual_multiplier": 0.2, "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": True,
    }),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
}  # fmt: skip


def family(name: str) -> nn.Module:
    if name in MODELS:
        kind, changes = MODELS[name]
        return random_model(kind, **changes)
    kind, changes = FAMILIES[name]
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    config = {
        "model_type": kind, "hidden_size": 64, "intermediate_size": 96, "vocab_size": 300,
        "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "max_position_embeddings": 512, **changes,
    }  # fmt: skip
    mx.random.seed(0)
    model: nn.Module = module.Model(module.ModelArgs.from_dict(config))
    mx.eval(model.parameters())
    return model


def rows(seed: int = 0) -> list[Row]:
    """Four rows of one prefix, with questions and answers of different lengths."""
    rng = np.random.default_rng(seed)
    prefix = rng.integers(0, 300, PREFIX).tolist()
    sizes = [(5, 7), (11, 3), (5, 20), (1, 9)]
    return [
        # The first token of each question differs, so that the prefix ends before it.
        Row([*prefix, i, *rng.integers(0, 300, a + b).tolist()], PREFIX + 1 + a)
        for i, (a, b) in enumerate(sizes)
    ]


def plain_losses(model: nn.Module, row: Row) -> mx.array:
    """The definition: the whole row through the model, cross-entropy where supervised."""
    logits = model(mx.array([row.ids[:-1]]))[0]
    picked = nn.losses.cross_entropy(logits, mx.array(row.ids[1:]), reduction="none")
    return picked[row.start - 1 :]


def relative(ours: mx.array, theirs: mx.array) -> float:
    a, b = np.array(ours), np.array(theirs)
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.fixture(params=["fused", "cpu attention"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = attention._fused if request.param == "fused" else attention.attend
    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", chosen)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("name", [*MODELS, *FAMILIES])
@pytest.mark.parametrize("frozen", [False, True], ids=["all trained", "head frozen"])
def test_loss_and_gradients_are_those_of_separate_rows(name: str, frozen: bool) -> None:
    model = family(name)
    if frozen:
        model.freeze()
        for block in model.layers:
            block.self_attn.unfreeze()
    group = group_rows(rows())
    assert group.prefix.size == PREFIX

    def shared(model: nn.Module) -> mx.array:
        return token_losses(model, group).mean()

    def separate(model: nn.Module) -> mx.array:
        return mx.concatenate([plain_losses(model, row) for row in rows()]).mean()

    together = token_losses(model, group)
    apart = mx.concatenate([plain_losses(model, row) for row in rows()])
    assert together.shape == apart.shape == (sum(group.counts),)
    assert relative(together, apart) < 1e-5
    loss, gradients = nn.value_and_grad(model, shared)(model)
    want, expected = nn.value_and_grad(model, separate)(model)
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)
    pairs = dict(tree_flatten(expected))
    assert pairs
    for path, gradient in tree_flatten(gradients):
        assert relative(gradient, pairs[path]) < 1e-4, path


def test_the_prefix_runs_once() -> None:
    model = random_model("llama")
    seen: list[int] = []
    inner = type(model.model).__call__

    class Counting(type(model.model)):  # type: ignore[misc]
        def __call__(self, inputs: mx.array, **kwargs: object) -> mx.array:
            seen.append(inputs.size)
            return inner(self, inputs, **kwargs)

    model.model.__class__ = Counting
    group = group_rows(rows())
    mx.eval(token_losses(model, group))
    assert sum(seen) == group.tokens
    assert seen[0] == PREFIX
    assert sum(seen) < sum(len(row.ids) for row in rows()) / 2


def test_lm_head_runs_on_supervised_rows_only() -> None:
    model = random_model("llama")
    group = group_rows(rows())
    sizes: list[int] = []

    class Counting(nn.Linear):
        def __call__(self, x: mx.array) -> mx.array:
            sizes.append(x.size // x.shape[-1])
            return super().__call__(x)

    model.lm_head.__class__ = Counting
    mx.eval(token_losses(model, group))
    assert sizes == [sum(row.supervised for row in rows())] == [39]
    tied = random_model("llama", tie_word_embeddings=True)
    hidden = mx.ones((3, 128))
    assert mx.allclose(lm_head(tied, hidden), hidden @ tied.model.embed_tokens.weight.T, atol=1e-4)


def expanded(group: Group) -> list[tuple[list[int], list[int]]]:
    """Each row again, as (inputs without padding, positions with loss)."""
    prefix = group.prefix[0].tolist()
    lines = [line for branch in group.branches for line in branch.tolist()]
    begins = np.cumsum([0, *map(len, lines)])
    out = []
    for index in range(len(group.of)):
        at = group.positions[np.flatnonzero(np.array(group.rows) == index).tolist()].tolist()
        (place,) = {int(np.searchsorted(begins, p, side="right")) - 1 for p in at}
        positions = [p - int(begins[place]) + len(prefix) for p in at]
        out.append(([*prefix, *lines[place]][: positions[-1] + 1], positions))
    return out


def check(group: Group, given: list[Row]) -> None:
    for (inputs, positions), row in zip(expanded(group), given, strict=True):
        assert inputs == row.ids[:-1]
        assert positions == list(range(row.start - 1, len(row.ids) - 1))
    assert group.targets.tolist() == [t for row in given for t in row.ids[row.start :]]
    assert group.counts == [row.supervised for row in given]


def test_rows_are_all_there_in_a_group() -> None:
    check(group_rows(rows()), rows())


def test_rows_of_like_lengths_are_padded_together() -> None:
    """Against every way to cut the rows into buckets."""
    for lengths in ([5, 90, 7, 88, 300], [40, 41], [10, 200], [3, 3, 3, 400, 390, 150]):
        found = buckets(lengths)
        assert sorted(index for bucket in found for index in bucket) == list(range(len(lengths)))

        def cost(cut: list[list[int]], lengths: list[int] = lengths) -> int:
            return sum(len(part) * max(lengths[i] for i in part) + _PASS for part in cut)

        ordered = sorted(range(len(lengths)), key=lambda i: lengths[i])
        ways = []
        for borders in itertools.product([False, True], repeat=len(lengths) - 1):
            parts = [[ordered[0]]]
            for index, border in zip(ordered[1:], borders, strict=True):
                parts = [*parts, [index]] if border else [*parts[:-1], [*parts[-1], index]]
            ways.append(cost(parts))
        assert cost(found) == min(ways)
    assert len(buckets([5, 90, 7, 88, 300])) == 3
    assert len(buckets([40, 41, 44])) == 1


def test_buckets_change_no_loss() -> None:
    rng = np.random.default_rng(4)
    prefix, sizes = rng.integers(0, 300, 50).tolist(), (3, 150, 5, 160)
    given = [Row([*prefix, i, *rng.integers(0, 300, n).tolist()], 52) for i, n in enumerate(sizes)]
    group, model = group_rows(given), random_model("llama")
    assert len(group.branches) == 2
    check(group, given)
    theirs = mx.concatenate([plain_losses(model, row) for row in given])
    assert relative(token_losses(model, group), theirs) < 1e-5


def test_one_row_has_no_prefix() -> None:
    given = rows()[:1]
    group = group_rows(given)
    assert group.prefix.shape == (1, 0)
    assert group.tokens == len(given[0].ids) - 1
    check(group, given)


def test_rows_without_a_common_prefix() -> None:
    given = [Row([1, *range(50)], 40), Row([2, *range(60)], 45)]
    group = group_rows(given)
    assert group.prefix.shape == (1, 0)
    check(group, given)


def test_a_short_prefix_is_not_shared() -> None:
    given = [Row([*range(31), 7, 8, 9], 33), Row([*range(31), 5, 6], 32)]
    assert group_rows(given).prefix.size == 0
    longer = [Row([*range(32), 7, 8, 9], 34), Row([*range(32), 5, 6], 33)]
    assert group_rows(longer).prefix.size == 32
    check(group_rows(longer), longer)


def test_a_prefix_ends_before_the_token_that_predicts_the_answer() -> None:
    """The same prompt with two answers that begin alike, and the same row twice."""
    prompt = list(range(60))
    given = [Row([*prompt, 5, 6, 7], 60), Row([*prompt, 5, 6, 8, 9], 60)]
    for pair in (given, [given[0], given[0]]):
        group = group_rows(pair)
        assert group.prefix.size == 59
        assert min(group.positions.tolist()) == 0
        check(group, pair)
        model = random_model("llama")
        ours = token_losses(model, group)
        theirs = mx.concatenate([plain_losses(model, row) for row in pair])
        assert relative(ours, theirs) < 1e-5


def test_a_prompt_of_one_token() -> None:
    given = [Row([3, 4, 5], 1), Row([3, 4], 1)]
    group = group_rows(given)
    assert group.prefix.size == 0
    check(group, given)


@pytest.mark.parametrize("name", [*MODELS, *FAMILIES])
def test_a_model_whose_losses_are_its_own_is_taken(name: str) -> None:
    model = family(name)
    check_model(model, name)
    assert not runs_apart(model)
