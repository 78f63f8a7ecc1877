"""The exponentials made of products against those of NumPy in double precision."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from forge_cli.models import cpu_math
from forge_cli.models.backend import mx

GRID = np.concatenate([np.linspace(-30, 30, 20_001), np.linspace(-1e-3, 1e-3, 101)])


def double(x: mx.array) -> np.ndarray:
    return np.array(x).astype(np.float64)


def test_powers_of_two_are_right_to_the_last_bits() -> None:
    x = mx.array(np.linspace(-125.9, 126.9, 300_001), mx.float32)
    assert np.abs(double(cpu_math.exp2(x)) / np.exp2(double(x)) - 1).max() < 3e-7
    whole = mx.arange(-126, 127).astype(mx.float32)
    assert np.array_equal(double(cpu_math.exp2(whole)), np.exp2(np.arange(-126.0, 127)))


def test_what_is_next_to_nothing_stays_so() -> None:
    tiny = np.array(cpu_math.exp2(mx.array([-127.0, -1e4, -1e30, -np.inf])))
    assert (tiny >= 0).all() and (tiny < 2e-38).all()


def test_exponentials_of_base_e() -> None:
    x = mx.array(np.linspace(-87, 88, 100_001), mx.float32)
    assert np.abs(double(cpu_math.exp(x)) / np.exp(double(x)) - 1).max() < 6e-6


def exact_silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def exact_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize(
    "ours,exact", [(cpu_math.silu, exact_silu), (cpu_math.gelu_approx, exact_gelu)]
)
def test_activations_and_their_slopes(
    ours: Callable[[mx.array], mx.array], exact: Callable[[np.ndarray], np.ndarray]
) -> None:
    # In double precision by formula; the slope by differences of it.
    x = mx.array(GRID, mx.float32)
    wide, step = double(x), 1e-5
    slope = (exact(wide + step) - exact(wide - step)) / (2 * step)
    toward = mx.array(np.cos(np.arange(GRID.size)), mx.float32)
    got = mx.grad(lambda x: (ours(x) * toward).sum())(x)
    assert np.abs(double(ours(x)) - exact(wide)).max() < 5e-6
    assert np.abs(double(got) - slope * double(toward)).max() < 3e-6


@pytest.mark.parametrize("name", ["silu", "gelu_approx"])
def test_other_dtypes_are_left_to_mlx(name: str) -> None:
    x = mx.array(GRID[::100], mx.bfloat16)
    ours, theirs = getattr(cpu_math, name)(x), getattr(cpu_math, f"_nn_{name}")(x)
    assert ours.dtype == mx.bfloat16 and mx.array_equal(ours, theirs)


def test_sums_of_rows() -> None:
    x = mx.array(np.random.default_rng(0).random((2, 3, 5, 700)), mx.float32)
    assert np.allclose(np.array(cpu_math.row_sums(x)), double(x).sum(-1, keepdims=True), rtol=1e-6)


def test_models_use_them() -> None:
    # In a process of its own: model files take swiglu by name when they are first imported.
    code = (
        "from forge_cli.models import attention, cpu_math\n"
        "from forge_cli.models.backend import nn\n"
        "attention.install()\n"
        "from mlx_lm.models import llama\n"
        "assert llama.swiglu is cpu_math.swiglu and nn.silu is cpu_math.silu\n"
        "assert nn.gelu_approx is cpu_math.gelu_approx\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_swiglu_is_mlx_lms() -> None:
    gate, x, toward = (mx.array(np.roll(GRID, n) / 4, mx.float32) for n in (0, 7, 5000))

    def value(swiglu: Callable[[mx.array, mx.array], mx.array]) -> tuple[np.ndarray, ...]:
        found, slopes = mx.vjp(swiglu, [gate, x], [toward])
        return tuple(double(a) for a in (*found, *slopes))

    theirs = value(lambda gate, x: gate * mx.sigmoid(gate) * x)
    for got, want in zip(value(cpu_math.swiglu), theirs, strict=True):
        assert np.abs(got - want).max() < 1e-4


def test_swiglu_keeps_its_inputs_alone() -> None:
    gate, x = mx.random.normal((200, 1000)), mx.random.normal((200, 1000))
    mx.eval(gate, x)

    def kept(swiglu: Callable[[mx.array, mx.array], mx.array]) -> int:
        """Bytes beside the inputs while forty of them, one after another, wait for the way back."""

        def chain(gate: mx.array, x: mx.array) -> mx.array:
            for _ in range(40):
                gate = swiglu(gate, x)
            return gate.sum()

        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(mx.grad(chain)(gate, x))
        return int(mx.get_peak_memory() - before)

    assert kept(cpu_math.swiglu) < 0.75 * kept(lambda gate, x: cpu_math.silu(gate) * x)
