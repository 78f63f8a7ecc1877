"""Where adapters start, against NumPy's SVD and, where it is installed, PEFT's PiSSA."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from forge_cli.core.errors import UsageError
from forge_cli.models.adapters import (
    AdapterConfig,
    LoRALinear,
    get_module,
    residual_hash,
    target_modules,
)
from forge_cli.models.backend import mx, nn
from forge_cli.train.initial import start_adapters
from forge_cli.train.inits.lora import lora_start
from forge_cli.train.inits.svd import principal_part, randomised_svd
from tiny_train import logits, random_model

SHAPES = {"wide": (48, 80), "tall": (96, 40), "square": (64, 64)}


def matrix(out: int, width: int, *, decay: float = 0.0, seed: int = 0) -> np.ndarray:
    """Random, float32; with `decay` its singular values fall as 1/i^decay."""
    rng = np.random.default_rng(seed)
    value = rng.standard_normal((out, width))
    if decay:
        U, S, Vt = np.linalg.svd(value, full_matrices=False)
        value = U * (np.arange(1, len(S) + 1) ** -decay) @ Vt
    return value.astype(np.float32)


def config(init: str = "pissa", **changes: object) -> AdapterConfig:
    values = {"rank": 4, "alpha": 4.0, "bits": 16, "group_size": 64, **changes}
    return AdapterConfig(model="tiny", init=init, modules=[], **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_exact_start_is_the_best_approximation_of_its_rank(
    shape: tuple[int, int], scale: float
) -> None:
    W = matrix(*shape)
    rank = 6
    U, S, Vt = np.linalg.svd(W.astype(np.float64), full_matrices=False)
    A, B = map(np.array, principal_part(mx.array(W), rank=rank, scale=scale, iterations=None))
    assert A.shape == (rank, shape[1])
    assert B.shape == (shape[0], rank)
    best = (U[:, :rank] * S[:rank]) @ Vt[:rank]
    assert np.allclose(scale * B @ A, best, atol=1e-4)
    # No matrix of this rank is nearer (Eckart-Young): what is left is the other values.
    left = np.linalg.norm(W - scale * B @ A)
    assert left == pytest.approx(np.sqrt((S[rank:] ** 2).sum()), rel=1e-4)
    sign = np.sign((A * Vt[:rank]).sum(axis=1))
    root = np.sqrt(S[:rank] / scale)
    assert np.allclose(A, (sign * root)[:, None] * Vt[:rank], atol=1e-4)
    assert np.allclose(B, U[:, :rank] * (sign * root), atol=1e-4)


def test_randomised_svd_is_near_the_exact_one() -> None:
    W = matrix(576, 640, decay=0.8)
    U, S, Vt = np.linalg.svd(W.astype(np.float64), full_matrices=False)
    found = [np.array(part) for part in randomised_svd(mx.array(W), 16, 4, 0)]
    assert [part.shape for part in found] == [(576, 24), (24,), (24, 640)]
    assert np.allclose(found[1][:16], S[:16], rtol=1e-3)
    A, B = map(np.array, principal_part(mx.array(W), rank=16, scale=1.0, iterations=4))
    best = np.linalg.norm(W - (U[:, :16] * S[:16]) @ Vt[:16])
    assert best <= np.linalg.norm(W - B @ A) * (1 + 1e-6)
    assert np.linalg.norm(W - B @ A) <= best * 1.0005
    # More iterations are nearer on a spectrum that falls slowly.
    slow = matrix(576, 640)
    error = [
        np.linalg.norm(slow - np.array(B) @ np.array(A))
        for A, B in (
            principal_part(mx.array(slow), rank=16, scale=1.0, iterations=i) for i in (0, 8)
        )
    ]
    assert error[1] < error[0]


def test_the_same_seed_starts_the_same() -> None:
    W = mx.array(matrix(576, 640))
    first, again, other = (
        principal_part(W, rank=8, scale=1.0, iterations=1, seed=seed)[0] for seed in (3, 3, 4)
    )
    assert mx.array_equal(first, again)
    assert not mx.array_equal(first, other)


def test_lora_starts_at_the_base() -> None:
    start = lora_start(mx.array(matrix(48, 100)), rank=8, seed=1)
    A, B = start.A, start.B
    assert start.A0 is None
    assert A.shape == (8, 100)
    assert B.shape == (48, 8)
    assert not B.any()
    assert 0.09 < np.abs(np.array(A)).max() <= 0.1, "uniform in ±1/√in"
    assert mx.array_equal(A, lora_start(mx.array(matrix(48, 100)), rank=8, seed=1).A)


def test_residual_and_adapter_make_the_weight_again() -> None:
    model = random_model("llama")
    before = {name: np.array(get_module(model, name).weight) for name in names(model)}
    ids = list(range(20))
    base = logits(model, ids)
    found, initial = start_adapters(
        model, config(alpha=8.0), targets=["q_proj", "down_proj"], layers=0, seed=0
    )
    assert sorted(found.modules) == sorted(before)
    assert set(initial) == {f"{name}.{leaf}" for name in before for leaf in "AB"}
    for name, W in before.items():
        layer = get_module(model, name)
        assert isinstance(layer, LoRALinear)
        assert layer.scale == 2.0
        residual = np.array(layer.base.weight)
        assert np.linalg.norm(residual) < np.linalg.norm(W), "the principal part is out"
        assert np.allclose(np.array(layer.merged()), W, atol=1e-6)
    assert np.allclose(logits(model, ids), base, atol=2e-4)


def names(model: nn.Module) -> list[str]:
    return target_modules(model, ["q_proj", "down_proj"], 0)


def test_lora_leaves_the_model_as_it_is() -> None:
    model = random_model("llama")
    base = logits(model, list(range(20)))
    _, initial = start_adapters(model, config("lora"), targets=["q_proj"], layers=1, seed=0)
    assert initial == {}
    assert np.array_equal(logits(model, list(range(20))), base)


def test_only_a_and_b_train() -> None:
    model = random_model("llama")
    found, _ = start_adapters(model, config(), targets=["q_proj"], layers=1, seed=0)
    from mlx.utils import tree_flatten

    trained = [name for name, _ in tree_flatten(model.trainable_parameters())]
    assert found.modules == ["model.layers.2.self_attn.q_proj"]
    assert sorted(trained) == [f"{found.modules[0]}.{leaf}" for leaf in "AB"]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UsageError, match=r"rank 65: larger than .*k_proj \(64, 128\)") as error:
        start_adapters(random_model("llama"), config(rank=65), targets=["k_proj"], layers=0, seed=0)
    assert "up to 64" in error.value.hint
    with pytest.raises(UsageError, match="no linear layer of this model has such a name"):
        start_adapters(random_model("llama"), config(), targets=["w_q"], layers=0, seed=0)
    with pytest.raises(UsageError, match="init olora: unknown"):
        start_adapters(random_model("llama"), config("olora"), targets=["q_proj"], layers=0, seed=0)


def test_stored_start_is_taken_over() -> None:
    """On resume the residual must come from the run's own A₀ and B₀, not from a new SVD."""
    first = random_model("llama")
    _, initial = start_adapters(first, config(), targets=["q_proj"], layers=0, seed=0)
    turned = {name: -value for name, value in initial.items()}
    second = random_model("llama")
    _, kept = start_adapters(second, config(), targets=["q_proj"], layers=0, seed=0, initial=turned)
    assert all(mx.array_equal(kept[name], turned[name]) for name in turned)
    assert residual_hash(first) == residual_hash(second)


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="PEFT is not installed")
def test_peft_starts_the_same_up_to_sign() -> None:
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    try:
        import pissa_vs_peft
    finally:
        sys.path.pop()
    for shape in ((96, 160), (160, 96)):
        result = pissa_vs_peft.compare(matrix(*shape), rank=8)
        assert result.singular < 1e-5
        assert result.A < 1e-4
        assert result.B < 1e-4
        assert result.product < 1e-4
        assert result.residual < 1e-4
        assert result.forge_error == pytest.approx(result.peft_error, rel=1e-5)
