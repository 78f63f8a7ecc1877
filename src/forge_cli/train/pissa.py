"""Where A and B start: PiSSA (arXiv 2404.02948) and LoRA (arXiv 2106.09685), in mlx.core.

PiSSA: W = U S Vᵀ, and the r largest singular directions become the adapter,
B₀ = U_r √(S_r/s), A₀ = √(S_r/s) V_rᵀ, W_res = W − s·B₀A₀ (eq. 2-4). W_res is computed from
the actual A₀ and B₀, so what a fast SVD misses stays in the residual.
"""

from __future__ import annotations

from forge_cli.models.backend import mx

# Beyond this many elements a full SVD costs seconds and a large Vᵀ.
_EXACT_ELEMENTS = 1 << 18
_OVERSAMPLE = 8


def pissa_init(
    weight: mx.array, *, rank: int, scale: float, iterations: int | None = 4, seed: int = 0
) -> tuple[mx.array, mx.array]:
    """The principal part of W as an adapter.

    Args:
        weight: W, float32 [out, in].
        rank: r ≤ min(out, in).
        scale: s = alpha/r.
        iterations: power iterations of the randomised SVD; None: the exact SVD. Small
            matrices always get the exact one.

    Returns:
        A₀ [r, in] and B₀ [out, r], float32.
    """
    if iterations is None or weight.size <= _EXACT_ELEMENTS:
        # svd and qr exist on the CPU stream only (MLX raises on the GPU).
        U, S, Vt = mx.linalg.svd(weight, stream=mx.cpu)
    else:
        U, S, Vt = randomised_svd(weight, rank, iterations, seed)
    root = mx.sqrt(S[:rank] / scale)
    return root[:, None] * Vt[:rank], U[:, :rank] * root[None]


def randomised_svd(
    weight: mx.array, rank: int, iterations: int, seed: int
) -> tuple[mx.array, mx.array, mx.array]:
    """The leading singular triplets by subspace iteration (Halko et al. 2011, alg. 4.4).

    Returns:
        U [out, k], S [k], Vᵀ [k, in] with k = min(rank + 8, out, in), float32.
    """
    out, width = weight.shape
    k = min(rank + _OVERSAMPLE, out, width)
    Q = mx.random.normal((width, k), key=mx.random.key(seed))
    for _ in range(iterations):
        Q, _ = mx.linalg.qr(weight @ Q, stream=mx.cpu)
        Q, _ = mx.linalg.qr(weight.T @ Q, stream=mx.cpu)
    Q, _ = mx.linalg.qr(weight @ Q, stream=mx.cpu)
    # MLX returns full factors, [in, in] for a wide core: take the SVD of its k × k R instead.
    P, R = mx.linalg.qr(weight.T @ Q, stream=mx.cpu)
    U, S, Vt = mx.linalg.svd(R.T, stream=mx.cpu)
    return Q @ U, S, Vt @ P.T


def lora_init(weight: mx.array, *, rank: int, seed: int = 0) -> tuple[mx.array, mx.array]:
    """A uniform in ±1/√in (as PEFT and mlx-lm), B = 0, so the start is the base itself.

    Returns:
        A [r, in], B [out, r], float32.
    """
    out, width = weight.shape
    bound = width**-0.5
    A = mx.random.uniform(-bound, bound, (rank, width), key=mx.random.key(seed))
    return A, mx.zeros((out, rank))
