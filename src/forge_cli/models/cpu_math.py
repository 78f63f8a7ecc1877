"""Exponentials for MLX's CPU backend, which computes them one number at a time on x86.

There an `exp` takes 12 ns an element and a product 0.2, so softmax and silu cost more than
all matrix products of a training step. Here an exponential is made of products and sums,
which compilers vectorise: 2 to 3 ns. (`benchmarks/train_kernels.py` measures both.)
"""

from __future__ import annotations

from typing import Any, cast

from forge_cli.models.backend import mx, nn, on_gpu

LOG2_E = 1.4426950408889634
# 2^f = 1 + f·(c₁ + f·(c₂ + …)) on [−½, ½]: a minimax fit, relative error 9e-8.
_POWERS = (0.00132647271, 0.00967151265, 0.0555073374, 0.240222421, 0.693146978)
# Added to |t| < 2²², it rounds t to a whole number, which then stands in the lowest bits.
_ROUND = 1.5 * 2.0**23


def exp(x: mx.array) -> mx.array:
    """eˣ of float32 values up to 88, to 4e-6 relative; below −87 it is 1e-38. No gradient."""
    return exp2(x * LOG2_E)


def exp2(x: mx.array) -> mx.array:
    """2ˣ of float32 values up to 127, to 2e-7 relative; below −126 it is 1e-38. No gradient."""
    x = mx.maximum(x, -126.0)
    rounded = x + _ROUND
    f = x - (rounded - _ROUND)
    power = f * _POWERS[0] + _POWERS[1]
    for coefficient in (*_POWERS[2:], 1.0):
        power = power * f + coefficient
    # The whole number goes into the exponent of 2^f.
    exponent = mx.left_shift(rounded.view(mx.int32), 23)
    return (power.view(mx.int32) + exponent).view(mx.float32)


def row_sums(x: mx.array) -> mx.array:
    """Sums over the last axis, kept: a product with ones takes a tenth of the time of `sum`."""
    return x @ mx.ones((x.shape[-1], 1))


def _sigmoid(x: mx.array) -> mx.array:
    return 1.0 / (1.0 + exp2(mx.minimum(x * -LOG2_E, 120.0)))


@mx.custom_function
def _silu32(x: mx.array) -> mx.array:
    return x * _sigmoid(x)


@_silu32.vjp
def _silu32_vjp(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
    # Computed again: to keep it would take as much memory as x.
    s = _sigmoid(x)
    return cotangent * (s * (1.0 + x * (1.0 - s)))


@mx.custom_function
def _gelu32(x: mx.array) -> mx.array:
    return x * _sigmoid(_gelu_argument(x))


@_gelu32.vjp
def _gelu32_vjp(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
    s = _sigmoid(_gelu_argument(x))
    slope = _GELU * (1.0 + 3 * _CUBE * x * x)
    return cotangent * (s * (1.0 + x * (1.0 - s) * slope))


# gelu(x) ≈ ½x(1 + tanh(√(2/π)(x + 0.044715x³))), and ½(1 + tanh u) is the sigmoid of 2u.
_GELU, _CUBE = 2 * 0.7978845608028654, 0.044715


def _gelu_argument(x: mx.array) -> mx.array:
    return _GELU * (x + _CUBE * x * x * x)


@mx.custom_function
def _swiglu32(gate: mx.array, x: mx.array) -> mx.array:
    return gate * _sigmoid(gate) * x


@_swiglu32.vjp
def _swiglu32_vjp(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, _: mx.array
) -> tuple[mx.array, mx.array]:
    # silu(gate) is not kept: the sigmoid is computed again for the slope anyhow.
    gate, x = primals
    s = _sigmoid(gate)
    toward = cotangent * s
    return toward * x * (1.0 + gate * (1.0 - s)), toward * gate


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """silu(gate)·x, elementwise (arXiv 2002.05202, eq. 6; as mlx-lm's `swiglu`)."""
    float32 = gate.dtype == x.dtype == mx.float32
    return cast(mx.array, _swiglu32(gate, x) if float32 else _nn_silu(gate) * x)


def silu(x: mx.array) -> mx.array:
    """x·sigmoid(x), elementwise (as `mlx.nn.silu`)."""
    return cast(mx.array, (_silu32 if x.dtype == mx.float32 else _nn_silu)(x))


def gelu_approx(x: mx.array) -> mx.array:
    """GELU by tanh (arXiv 1606.08415, §2), elementwise (as `mlx.nn.gelu_approx`)."""
    return cast(mx.array, (_gelu32 if x.dtype == mx.float32 else _nn_gelu_approx)(x))


_nn_silu: Any = nn.silu
_nn_gelu_approx: Any = nn.gelu_approx


def install() -> None:
    """Let mlx-lm's models use these where MLX computes on the CPU."""
    if not on_gpu():
        from mlx_lm.models import activations

        for module in (nn, nn.layers.activations):
            module.silu = silu
            module.gelu_approx = gelu_approx
        # Model files take it by name when they are imported, which is later.
        activations.swiglu = swiglu
