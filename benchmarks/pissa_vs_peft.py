"""Forge's PiSSA start beside PEFT's (`init_lora_weights="pissa"`), on the same matrices.

    make bench                                  # or, where peft and torch are installed:
    python benchmarks/pissa_vs_peft.py

Exact SVD against exact SVD: the largest differences of A, B (signs aligned: a singular vector
has two), BA and W_res, relative to the largest value. The fast SVD (4 iterations) against
PEFT's `pissa_niter_4`: how far ‖W − BA‖ is above that of the best BA of this rank, since where
singular values lie close together two good answers need not be the same. And the seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from forge_cli.models.backend import mx
from forge_cli.train.inits.svd import principal_part

# The linear layers of SmolLM2-135M, [out, in].
SHAPES = {"q, o": (576, 576), "k, v": (192, 576), "gate, up": (1536, 576), "down": (576, 1536)}
RANK = 16


@dataclass(frozen=True)
class Comparison:
    """Largest differences, relative to the largest value of PEFT's; ‖W − BA‖; seconds."""

    A: float
    B: float
    product: float
    residual: float
    singular: float
    forge_error: float
    peft_error: float
    forge_seconds: float
    peft_seconds: float


def compare(W: np.ndarray, rank: int, *, iterations: int | None = None) -> Comparison:
    """Both starts of one weight W, float32 [out, in], alpha = rank.

    Args:
        iterations: None: the exact SVD of both; else power iterations of both fast ones.
    """
    weight = mx.array(W)
    mx.eval(principal_part(weight[:64, :64], rank=2, scale=1.0))  # first-call costs

    def forge() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        A, B = principal_part(weight, rank=rank, scale=1.0, iterations=iterations)
        residual = weight - B @ A
        mx.eval(A, B, residual)
        return np.array(A), np.array(B), np.array(residual)

    forge_seconds, (A, B, residual) = timed(forge)
    peft_seconds, (A_peft, B_peft, residual_peft) = timed(lambda: peft_start(W, rank, iterations))
    sign = np.sign((A * A_peft).sum(axis=1))
    norms, norms_peft = (np.linalg.norm(m, axis=1) ** 2 for m in (A, A_peft))
    return Comparison(
        A=apart(A, A_peft * sign[:, None]),
        B=apart(B, B_peft * sign),
        product=apart(B @ A, B_peft @ A_peft),
        residual=apart(residual, residual_peft),
        singular=apart(norms, norms_peft),
        forge_error=float(np.linalg.norm(W - B @ A)),
        peft_error=float(np.linalg.norm(W - B_peft @ A_peft)),
        forge_seconds=forge_seconds,
        peft_seconds=peft_seconds,
    )


def peft_start(
    W: np.ndarray, rank: int, iterations: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A [r, in], B [out, r] and W_res [out, in] as PEFT makes them."""
    import torch
    from peft import LoraConfig
    from peft.tuners.lora import Linear

    layer = torch.nn.Linear(W.shape[1], W.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(W))
    init = "pissa" if iterations is None else f"pissa_niter_{iterations}"
    settings = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=init)
    tuned: Any = Linear(
        layer, "default", config=settings, r=rank, lora_alpha=rank,
    )  # fmt: skip
    return (
        tuned.lora_A["default"].weight.detach().numpy(),
        tuned.lora_B["default"].weight.detach().numpy(),
        tuned.base_layer.weight.detach().numpy(),
    )


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Best of three, seconds, and the last result."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - start)
    return best, result


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """max |ours − theirs| / max |theirs|."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def smollm2_weights() -> dict[str, np.ndarray]:
    """One layer of each shape from the built-in model, or random ones where it is missing."""
    from forge_cli.core.errors import ForgeError
    from forge_cli.models.adapters import load_arrays
    from forge_cli.models.resolve import resolve

    modules = ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")
    try:
        arrays = load_arrays(resolve("smollm2-135m") / "model.safetensors")
    except ForgeError:
        rng = np.random.default_rng(0)
        return {k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()}
    names = [f"model.layers.15.{module}.weight" for module in modules]
    return {
        shape: np.array(arrays[name].astype(mx.float32))
        for shape, name in zip(SHAPES, names, strict=True)
    }


def main() -> None:
    """Print both tables."""
    weights = smollm2_weights()
    print(f"rank {RANK}, seconds for one matrix (best of three)\n\nExact SVD")
    print("| layer | A | B | BA | W_res | Forge s | PEFT s |\n|---|---|---|---|---|---|---|")
    best = {}
    for name, W in weights.items():
        r = compare(W, RANK)
        best[name] = min(r.forge_error, r.peft_error)
        figures = " | ".join(f"{value:.1e}" for value in (r.A, r.B, r.product, r.residual))
        print(f"| {name} {W.shape} | {figures} | {r.forge_seconds:.3f} | {r.peft_seconds:.3f} |")
    print("\nFast SVD, 4 iterations: error above the best of this rank")
    print("| layer | Forge | PEFT | Forge s | PEFT s |\n|---|---|---|---|---|")
    for name, W in weights.items():
        r = compare(W, RANK, iterations=4)
        over = [error / best[name] - 1 for error in (r.forge_error, r.peft_error)]
        print(
            f"| {name} {W.shape} | {over[0]:.2%} | {over[1]:.2%} "
            f"| {r.forge_seconds:.3f} | {r.peft_seconds:.3f} |"
        )


if __name__ == "__main__":
    main()
