"""LoftQ (arXiv 2310.08659, algorithm 1): the adapter starts as what the quantiser lost.

A₀ = B₀ = 0; for t = 1 … T: Q_t = quant(W − s·B_{t−1}A_{t−1}), A_t, B_t = SVD_r(W − Q_t).
Training starts from Q_T, A_T, B_T. So Q_T was made with the pair of the round before, which
is what the base is made from again; with T = 1 that is nothing, and the base is quant(W).
"""

from __future__ import annotations

from forge_cli.models.backend import mx
from forge_cli.models.lora import without_start
from forge_cli.train.inits import Quantise, Start
from forge_cli.train.inits.svd import principal_part


def loftq_start(
    weight: mx.array,
    *,
    rank: int,
    scale: float,
    quantise: Quantise,
    alternations: int,
    iterations: int | None = 4,
    seed: int = 0,
) -> Start:
    """`alternations` = T ≥ 1 rounds for W [out, in]."""
    A: mx.array | None = None
    B: mx.array | None = None
    for _ in range(alternations):
        A0, B0 = A, B
        Q = quantise(without_start(weight, A0, B0, scale))
        lost = weight.astype(mx.float32) - Q.astype(mx.float32)
        A, B = principal_part(lost, rank=rank, scale=scale, iterations=iterations, seed=seed)
        mx.eval(A, B)  # one round's temporaries at a time
    assert A is not None and B is not None, "T ≥ 1"
    return Start(A, B, A0, B0)
