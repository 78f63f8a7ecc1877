"""Attention for the CPU, in place of MLX's fused one, which falls back to slow generic code there.

Same function, two savings: heads that share keys (GQA) are folded into one GEMM, and
causal queries run in blocks over only the keys they see.
"""

from __future__ import annotations

from typing import Any

from forge_cli.models.backend import mx, on_gpu

_BLOCK = 128


def attend(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None = None,
    sinks: mx.array | None = None,
    **_: Any,
) -> mx.array:
    """softmax(s·q·kᵀ + mask)·v, the interface of `mx.fast.scaled_dot_product_attention`.

    Args:
        q: [B, H, L, D]. k: [B, K, T, D] and v: [B, K, T, Dv] with H a multiple of K.
        mask: None, "causal" (query i sees keys up to T − L + i), or an array that
            broadcasts to [B, H, L, T]: bool (True: visible) or additive.

    Returns:
        [B, H, L, Dv].
    """
    if sinks is not None:
        return _fused(q, k, v, scale=scale, mask=mask, sinks=sinks)
    length, total = q.shape[2], k.shape[2]
    causal = isinstance(mask, str)
    if not causal or length <= _BLOCK:
        return _block(q * scale, k, v, _triangle(length, total) if causal else mask)
    blocks = []
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        seen = total - length + stop
        blocks.append(
            _block(
                q[:, :, start:stop] * scale,
                k[:, :, :seen],
                v[:, :, :seen],
                _triangle(stop - start, seen),
            )
        )
    return mx.concatenate(blocks, axis=2)


def _triangle(length: int, total: int) -> mx.array | None:
    if length == 1:
        return None
    return mx.arange(total - length, total)[:, None] >= mx.arange(total)[None]


def _block(q: mx.array, k: mx.array, v: mx.array, mask: mx.array | str | None) -> mx.array:
    batch, heads, length, dim = q.shape
    shared = k.shape[1]
    folded = q.reshape(batch, shared, heads // shared * length, dim)
    scores = folded @ k.swapaxes(-1, -2)
    if isinstance(mask, mx.array):
        wide = scores.reshape(batch, heads, length, -1)
        if mask.dtype == mx.bool_:
            wide = mx.where(mask, wide, mx.finfo(wide.dtype).min)
        else:
            wide = wide + mask
        scores = wide.reshape(scores.shape)
    out = mx.softmax(scores, axis=-1) @ v
    return out.reshape(batch, heads, length, v.shape[-1])


_fused = mx.fast.scaled_dot_product_attention


def install() -> None:
    """Let mlx-lm's models use `attend` where MLX computes on the CPU."""
    if not on_gpu():
        mx.fast.scaled_dot_product_attention = attend
