"""Attention for the CPU, in place of MLX's fused one, which falls back to slow generic code there.

Same function, other order of work: heads that share keys (GQA) are folded into one GEMM,
causal queries run in blocks over only the keys they see, exponentials are those of
`cpu_math`, and the backward pass makes the probabilities of a block again from the stored
log-sum-exp instead of keeping them (arXiv 2205.14135, algorithm 4), so memory grows with the
length and not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from forge_cli.models import cpu_math
from forge_cli.models.backend import mx, on_gpu

# Queries of a block: many for a short context, fewer where their scores would take much memory.
_LEAST, _MOST, _BLOCK_BYTES = 16, 96, 12 << 20
# Less than any score by so much that its exponential is nothing.
_UNSEEN = -1e30
_LN_2 = 1 / cpu_math.LOG2_E


def attend(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | str | Packed | None = None,
    sinks: mx.array | None = None,
    **_: Any,
) -> mx.array:
    """softmax(s·q·kᵀ + mask)·v, the interface of `mx.fast.scaled_dot_product_attention`.

    Args:
        q: [B, H, L, D]. k: [B, K, T, D] and v: [B, K, T, Dv] with H a multiple of K.
        mask: None, "causal" (query i sees keys up to T − L + i), or an array that
            broadcasts to [B, H, L, T]: bool (True: visible) or additive, without a gradient;
            or `Packed`.

    Returns:
        [B, H, L, Dv].
    """
    if sinks is not None or q.dtype != mx.float32:
        mask = mask.visible() if isinstance(mask, Packed) else mask
        return _fused(q, k, v, scale=scale, mask=mask, sinks=sinks)
    if isinstance(mask, mx.array) and mask.dtype == mx.bool_:
        mask = _additive(mask)
    shape = (*q.shape[:3], v.shape[-1])
    shared = k.shape[1]
    # Scores are in powers of two. Query heads of one key head stand together: [B, K, G, L, D].
    grouped = (q * (scale * cpu_math.LOG2_E)).reshape(q.shape[0], shared, -1, *q.shape[2:])
    out, _unused = _attention(mask)(grouped, k, v)
    return out.reshape(shape)


def _attention(mask: mx.array | str | Packed | None) -> Any:
    """(q, k, v) → (outputs, log₂ of the summed 2^score), with the backward pass made by hand."""

    @mx.custom_function
    def attention(q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array]:
        outputs, sums = [], []
        for block in _blocks(q, k, mask):
            scores = block.scores(q, k)
            top = scores.max(axis=-1, keepdims=True)
            p = cpu_math.exp2(scores - top)
            total = cpu_math.row_sums(p)
            outputs.append(block.unfold(p @ v[:, :, block.keys] / total))
            sums.append(block.unfold(top + mx.log2(total)))
        return mx.concatenate(outputs, axis=3), mx.concatenate(sums, axis=3)

    @attention.vjp
    def backward(
        primals: tuple[mx.array, mx.array, mx.array],
        cotangents: tuple[mx.array, mx.array],
        outputs: tuple[mx.array, mx.array],
    ) -> tuple[mx.array, mx.array, mx.array]:
        q, k, v = primals
        given, out, sums = cotangents[0], outputs[0], outputs[1]
        dots = (given * out).sum(axis=-1, keepdims=True)
        dq: list[mx.array] = []
        dk, dv = mx.zeros_like(k), mx.zeros_like(v)
        for block in _blocks(q, k, mask):
            keys = block.keys
            own, toward = block.fold(q), block.fold(given)
            if dq:  # or MLX would hold what all blocks have of p and ds
                own, toward = mx.depends([own, toward], [dk, dv])
            p = cpu_math.exp2(block.scores(q, k) - block.fold(sums))
            ds = p * (toward @ v[:, :, keys].swapaxes(-1, -2) - block.fold(dots))
            dq.append(block.unfold(ds @ k[:, :, keys]))
            dk = _add_at(dk, keys, ds.swapaxes(-1, -2) @ own)
            dv = _add_at(dv, keys, p.swapaxes(-1, -2) @ toward)
        return mx.concatenate(dq, axis=3) * _LN_2, dk * _LN_2, dv

    return attention


@dataclass(frozen=True)
class Packed:
    """A mask: rows of these lengths stand one after another, each causal and blind to the rest."""

    lengths: tuple[int, ...]

    def visible(self, window: int | None = None) -> mx.array:
        """The same as an array, bool [T, T]; with a window only its last keys are seen."""
        row = mx.array(np.repeat(np.arange(len(self.lengths)), self.lengths))
        at = mx.arange(row.size)
        seen = (row[:, None] == row[None]) & (at[:, None] >= at[None])
        return seen if window is None else seen & (at[:, None] < at[None] + window)


@dataclass(frozen=True)
class _Block:
    """Queries start..stop, which see some of the keys."""

    start: int
    stop: int
    keys: slice
    mask: mx.array | None  # additive, broadcasts to [B, H, stop − start, keys]

    def fold(self, x: mx.array) -> mx.array:
        """[B, K, G, L, D] → [B, K, G·(stop − start), D]: one GEMM for the heads of a group."""
        part = x[:, :, :, self.start : self.stop]
        return part.reshape(*x.shape[:2], -1, x.shape[-1])

    def unfold(self, x: mx.array) -> mx.array:
        """[B, K, G·l, D] → [B, K, G, l, D]."""
        return x.reshape(*x.shape[:2], -1, self.stop - self.start, x.shape[-1])

    def scores(self, q: mx.array, k: mx.array) -> mx.array:
        """q·kᵀ + mask, [B, K, G·l, keys]."""
        scores = self.fold(q) @ k[:, :, self.keys].swapaxes(-1, -2)
        if self.mask is None:
            return scores
        wide = (q.shape[0], -1, self.stop - self.start, scores.shape[-1])
        return (scores.reshape(wide) + self.mask).reshape(scores.shape)


def _blocks(q: mx.array, k: mx.array, mask: mx.array | str | Packed | None) -> Iterator[_Block]:
    if isinstance(mask, Packed):
        heads, first = q.shape[0] * q.shape[1] * q.shape[2], 0
        for size in mask.lengths:
            for start in range(0, size, rows := _queries(heads, size)):
                stop = min(start + rows, size)
                keys, ahead = slice(first, first + stop), _triangle(stop - start, stop)
                yield _Block(first + start, first + stop, keys, ahead)
            first += size
        return
    length, total = q.shape[3], k.shape[2]
    rows = _queries(q.shape[0] * q.shape[1] * q.shape[2], total)
    for start in range(0, length, rows):
        stop = min(start + rows, length)
        if isinstance(mask, str):
            seen = total - length + stop
            yield _Block(start, stop, slice(0, seen), _triangle(stop - start, seen))
        elif mask is None or mask.ndim < 2 or mask.shape[-2] == 1:
            yield _Block(start, stop, slice(0, total), mask)
        else:
            yield _Block(start, stop, slice(0, total), mask[..., start:stop, :])


def _queries(heads: int, total: int) -> int:
    """Queries of a block, for so many heads over all rows and so many keys."""
    return max(_LEAST, min(_MOST, _BLOCK_BYTES // (4 * heads * total)))


def block_bytes(rows: int, heads: int, length: int, total: int) -> int:
    """Bytes of the scores of a block at once: [rows, heads, queries, total] in float32."""
    return 4 * rows * heads * min(length, _queries(rows * heads, total)) * total


def _triangle(length: int, total: int) -> mx.array | None:
    if length == 1:
        return None
    # How far a key lies ahead of its query. Products and sums: a choice would cost ten times more.
    ahead = mx.arange(total, dtype=mx.float32) - mx.arange(total - length, total)[:, None]
    return mx.maximum(ahead, 0.0) * _UNSEEN


def _additive(visible: mx.array) -> mx.array:
    return mx.where(visible, 0.0, _UNSEEN)


def _add_at(whole: mx.array, keys: slice, part: mx.array) -> mx.array:
    """`whole` with `part` added to some of its keys."""
    if part.shape == whole.shape:
        return whole + part
    parts = [whole[:, :, : keys.start], whole[:, :, keys] + part, whole[:, :, keys.stop :]]
    return mx.concatenate([part for part in parts if part.shape[2]], axis=2)


_fused = mx.fast.scaled_dot_product_attention


def installed() -> bool:
    """Whether mlx-lm's models use `attend`."""
    return mx.fast.scaled_dot_product_attention is attend


def install() -> None:
    """Let mlx-lm's models use `attend` where MLX computes on the CPU."""
    if not on_gpu():
        cpu_math.install()
        mx.fast.scaled_dot_product_attention = attend
