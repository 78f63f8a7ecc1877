"""The bytes a tensor becomes: checked and coded by ggml, piece by piece in threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from forge_cli.core.errors import ForgeError
from forge_cli.models.ggml import Coder, coder

# Elements that one thread codes at once: as few as llama.cpp takes, for most matrices of a small
# model have less than a million, and every core is to have its share of each.
_PIECE = 1 << 15
_F16_MAX = 65504.0


def stored_bytes(shape: Sequence[int], kind: str) -> int:
    """How many bytes a tensor takes as `kind`."""
    import libgguf

    rows = int(np.prod(shape[:-1], dtype=np.int64))
    return rows * int(libgguf.row_size(ggml_type(kind), shape[-1]))


def ggml_type(kind: str) -> int:
    """The number of a type in ggml."""
    from gguf import GGMLQuantizationType

    return int(GGMLQuantizationType[kind])


def encode(
    values: np.ndarray,
    kind: str,
    name: str,
    threads: ThreadPoolExecutor,
    *,
    importance: np.ndarray | None = None,
    code: Coder | None = None,
) -> np.ndarray:
    """Code a tensor as `kind`.

    Args:
        values: float32 [out, in], [experts, out, in] or [n].
        name: for messages.
        threads: they share the work.
        importance: float32 [in] or [experts, in], what errors are weighed by.
        code: what codes rows; None: the fastest here.

    Returns:
        float32 of the same shape, or uint8 [rows, bytes of a row]; C-contiguous.

    Raises:
        ForgeError: a value is not finite, or too large for float16.
    """
    values = np.ascontiguousarray(values, np.float32)
    rows = values.reshape(-1, values.shape[-1])
    out = values
    if kind != "F32":
        out = np.empty((len(rows), stored_bytes((1, rows.shape[1]), kind)), np.uint8)
    number, code, step = ggml_type(kind), code or coder(), max(1, _PIECE // rows.shape[1])
    weights = importance if importance is None else importance.reshape(-1, rows.shape[1])
    height = len(rows) if weights is None else len(rows) // len(weights)  # rows of an expert
    pieces = [
        (start, min(start + step, top + height))
        for top in range(0, len(rows), height)
        for start in range(top, top + height, step)
    ]
    waiting = iter(pieces)  # the threads draw from it until it is empty

    def work() -> None:
        for start, end in waiting:
            _check(rows[start:end], kind, name)
            if kind != "F32":
                own = None if weights is None else weights[start // height]
                code(rows, out, number, start, end - start, own)

    if len(pieces) == 1:
        work()
    else:
        # ggml and numpy work outside the interpreter lock.
        shares = [threads.submit(work) for _ in range(os.cpu_count() or 1)]
        for share in shares:
            share.result()
    return out


def _check(values: np.ndarray, kind: str, name: str) -> None:
    # max propagates NaN, and neither makes a copy.
    largest = max(float(values.max()), -float(values.min()))
    if not np.isfinite(largest):
        raise ForgeError(f"tensor {name} has values that are not finite", "train the run again")
    if kind == "F16" and largest > _F16_MAX:
        raise ForgeError(
            f"tensor {name} has {largest:.3g}, too large for float16", "export as q8_0 or f32"
        )
