"""The bytes a tensor becomes: coded by ggml in the `libgguf` wheel, in threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from forge_cli.core.errors import ForgeError

_PIECE = 1 << 20  # elements that one thread codes at once
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


def encode(values: np.ndarray, kind: str, name: str) -> np.ndarray:
    """Code a tensor as `kind`.

    Args:
        values: float32 [out, in], [experts, out, in] or [n].
        name: for messages.

    Returns:
        float32 or float16 of the same shape, or uint8 [rows, bytes of a row]; C-contiguous.

    Raises:
        ForgeError: a value is not finite, or too large for float16.
    """
    values = np.ascontiguousarray(values, np.float32)
    # max propagates NaN, and neither makes a copy.
    largest = max(float(values.max()), -float(values.min()))
    if not np.isfinite(largest):
        raise ForgeError(f"tensor {name} has values that are not finite", "train the run again")
    if kind == "F32":
        return values
    if kind == "F16":
        if largest > _F16_MAX:
            raise ForgeError(
                f"tensor {name} has {largest:.3g}, too large for float16", "export as q8_0 or f32"
            )
        return values.astype(np.float16)
    return _encode_rows(values, kind)


def _encode_rows(values: np.ndarray, kind: str) -> np.ndarray:
    import libgguf

    number = ggml_type(kind)
    values = values.reshape(-1, values.shape[-1])
    rows, width = values.shape
    out = np.empty((rows, libgguf.row_size(number, width)), np.uint8)
    step = max(1, _PIECE // width)

    def code(start: int) -> None:
        part = slice(start, start + step)
        out[part] = libgguf.quantize_rows(values[part], number)

    # ggml works outside the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(code, range(0, rows, step)))
    return out
