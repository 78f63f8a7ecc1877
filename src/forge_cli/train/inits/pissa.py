"""PiSSA and QPiSSA (arXiv 2404.02948): train the principal part, quantise the rest.

PiSSA: W = U S Vᵀ, and the r largest singular directions become the adapter,
B₀ = U_r √(S_r/s), A₀ = √(S_r/s) V_rᵀ, W_res = W − s·B₀A₀ (eq. 2-4). W_res is computed from
the actual A₀ and B₀, so what a fast SVD misses stays in the residual.

QPiSSA (its algorithm of T alternations): res = W; T times: L, R = SVD_r(res),
Q = quant(W − LR), res = W − Q. So from the second on the adapter is the principal part of
what the quantised base lacks, and the base is quantised anew without it.
"""

from __future__ import annotations

from forge_cli.models.backend import mx
from forge_cli.models.lora import without_start
from forge_cli.train.inits import Quantise, Start
from forge_cli.train.inits.svd import principal_part


def pissa_start(
    weight: mx.array, *, rank: int, scale: float, iterations: int | None = 4, seed: int = 0
) -> Start:
    """The principal part of W [out, in]; what is left of W is quantised once."""
    A, B = principal_part(weight, rank=rank, scale=scale, iterations=iterations, seed=seed)
    return Start(A, B, A, B)


def qpissa_start(
    weight: mx.array,
    *,
    rank: int,
    scale: float,
    quantise: Quantise,
    alternations: int,
    iterations: int | None = 4,
    seed: int = 0,
) -> Start:
    """`alternations` = T rounds against the quantiser that serves; returns the L, R that made Q.

    T = 1 is PiSSA, quantised; so is T = 0, which asks for no alternation.
    """
    lacking = weight
    for turn in range(max(alternations, 1)):
        A, B = principal_part(lacking, rank=rank, scale=scale, iterations=iterations, seed=seed)
        if turn + 1 < alternations:
            Q = quantise(without_start(weight, A, B, scale))
            lacking = weight.astype(mx.float32) - Q.astype(mx.float32)
            mx.eval(lacking)  # one round's temporaries at a time
    return Start(A, B, A, B)
