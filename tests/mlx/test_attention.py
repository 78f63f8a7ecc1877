"""Forge's CPU attention against MLX's fused one, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest

from forge_cli.models import attention
from forge_cli.models.backend import mx

HEADS = {"no sharing": (4, 4), "shared keys": (6, 2), "one key head": (3, 1)}
# (queries, keys): one token, decoding after a prefix, and around the block of 128.
LENGTHS = [(1, 1), (1, 70), (5, 5), (17, 90), (127, 127), (128, 128), (129, 129), (130, 300)]
LENGTHS += [(257, 257)]


def arrays(heads: tuple[int, int], length: int, total: int) -> list[mx.array]:
    rng = np.random.default_rng(length * 1000 + total)
    shapes = (2, heads[0], length, 16), (2, heads[1], total, 16), (2, heads[1], total, 8)
    return [mx.array(rng.standard_normal(shape), dtype=mx.float32) for shape in shapes]


def masks(kind: str, length: int, total: int) -> mx.array | str | None:
    visible = mx.arange(total - length, total)[:, None] >= mx.arange(total)[None]
    window = visible & (mx.arange(total)[None] > mx.arange(total - length, total)[:, None] - 9)
    rows = mx.broadcast_to(window, (2, 1, length, total))
    return {
        "none": None,
        "causal": "causal",
        "bool": window,
        "bool by row": rows,
        "additive": mx.where(visible, mx.array(0.25), mx.array(-1e9)),
    }[kind]


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("length,total", LENGTHS)
@pytest.mark.parametrize("kind", ["none", "causal", "bool", "bool by row", "additive"])
def test_the_same_function_as_mlx(
    heads: tuple[int, int], length: int, total: int, kind: str
) -> None:
    q, k, v = arrays(heads, length, total)
    mask = masks(kind, length, total)
    ours = attention.attend(q, k, v, scale=0.3, mask=mask)
    theirs = attention._fused(q, k, v, scale=0.3, mask=mask)
    assert ours.shape == theirs.shape
    assert np.allclose(np.array(ours), np.array(theirs), atol=2e-6)


@pytest.mark.parametrize("length,total", [(5, 5), (17, 90), (130, 300)])
@pytest.mark.parametrize("kind", ["none", "causal", "bool", "additive"])
def test_the_same_gradients_as_mlx(length: int, total: int, kind: str) -> None:
    inputs = arrays((6, 2), length, total)
    mask = masks(kind, length, total)
    toward = mx.array(np.random.default_rng(3).standard_normal((2, 6, length, 8)), mx.float32)

    def gradients(function: object) -> list[mx.array]:
        def loss(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
            return (function(q, k, v, scale=0.3, mask=mask) * toward).sum()  # type: ignore[operator]

        return mx.grad(loss, argnums=(0, 1, 2))(*inputs)

    for ours, theirs in zip(gradients(attention.attend), gradients(attention._fused), strict=True):
        assert np.allclose(np.array(ours), np.array(theirs), atol=2e-5)


def test_sinks_go_to_mlx() -> None:
    q, k, v = arrays((4, 4), 5, 5)
    sinks = mx.array([0.5, -1.0, 2.0, 0.0])
    ours = attention.attend(q, k, v, scale=0.3, mask="causal", sinks=sinks)
    theirs = attention._fused(q, k, v, scale=0.3, mask="causal", sinks=sinks)
    assert mx.array_equal(ours, theirs)
    plain = attention.attend(q, k, v, scale=0.3, mask="causal")
    assert not mx.allclose(ours, plain)
