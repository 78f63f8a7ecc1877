"""The principal part of a matrix as two thin ones, by an exact or a randomised SVD."""

from __future__ import annotations

from forge_cli.models.backend import mx

# Beyond this many elements a full SVD costs seconds and a large Vᵀ.
_EXACT_ELEMENTS = 1 << 18
_OVERSAMPLE = 8


def principal_part(
    matrix: mx.array, *, rank: int, scale: float, iterations: int | None = 4, seed: int = 0
) -> tuple[mx.array, mx.array]:
    """The best approximation s·B·A of its rank, shared evenly between both factors.

    M = U S Vᵀ gives B = U_r √(S_r/s), A = √(S_r/s) V_rᵀ (PiSSA, arXiv 2404.02948, eq. 2-3).

    Args:
        matrix: M [out, in]; computed in float32.
        rank: r ≤ min(out, in).
        scale: s.
        iterations: power iterations of the randomised SVD; None: the exact SVD. Small
            matrices always get the exact one.

    Returns:
        A [r, in] and B [out, r], float32.
    """
    matrix = matrix.astype(mx.float32)
    if iterations is None or matrix.size <= _EXACT_ELEMENTS:
        # svd and qr exist on the CPU stream only (MLX raises on the GPU).
        U, S, Vt = mx.linalg.svd(matrix, stream=mx.cpu)
    else:
        U, S, Vt = randomised_svd(matrix, rank, iterations, seed)
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
