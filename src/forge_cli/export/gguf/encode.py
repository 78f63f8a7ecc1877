"""Which type each tensor gets, and the bytes it becomes.

The policy is llama.cpp's (`src/llama-quant.cpp`), so that a file made here and one made by
`llama-quantize` hold the same bytes (tests/unit/test_gguf_bytes.py); the blocks themselves
are coded by ggml in the `libgguf` wheel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from forge_cli.core.errors import ForgeError


@dataclass(frozen=True)
class Quant:
    """A kind of file: its type for most matrices and its number in `general.file_type`."""

    base: str
    file_type: int  # gguf.LlamaFileType


QUANTS = {
    "f32": Quant("F32", 0),
    "f16": Quant("F16", 1),
    "q8_0": Quant("Q8_0", 7),
    "q4_k_m": Quant("Q4_K", 15),
}

# Type → elements in a block, and what llama.cpp takes where rows do not fill its blocks.
_BLOCK = {"F32": 1, "F16": 1, "Q8_0": 32, "Q5_0": 32, "Q5_1": 32}
_BLOCK |= dict.fromkeys(("Q4_K", "Q5_K", "Q6_K"), 256)
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}

_PIECE = 1 << 20  # elements that one thread codes at once
_F16_MAX = 65504.0


def tensor_type(
    name: str, shape: Sequence[int], *, quant: str, arch: str, layers: int, tied: bool
) -> str:
    """The ggml type of one tensor.

    Args:
        name: GGUF name. shape: [out, in] or [n].
        tied: there is no output.weight, so the embedding is the output head as well.
    """
    base = QUANTS[quant].base
    if len(shape) == 1 or name.endswith("_norm.weight"):
        return "F32"
    head = name == "output.weight" or (tied and name == "token_embd.weight")
    if quant == "q4_k_m":
        if head and shape[-1] % _BLOCK["Q4_K"]:
            base = "Q8_0"
        elif head:
            base = "Q6_K"
        elif name.endswith(("attn_v.weight", "ffn_down.weight")):
            base = _q4_k_m(name, arch, layers)
    if shape[-1] % _BLOCK[base]:
        base = _FALLBACK.get(base, "F16")
    return base if shape[-1] % _BLOCK[base] == 0 else "F16"


def _q4_k_m(name: str, arch: str, layers: int) -> str:
    """More bits for values and the way back down, in the layers where they matter most."""
    layer = int(name.split(".")[1])
    if layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2:
        return "Q6_K"
    # 80 layers: llama.cpp takes it for a 70B model, whose eight query heads share a value.
    if name.endswith("attn_v.weight") and layers == 80 and arch in ("llama", "qwen2"):
        return "Q5_K"
    return "Q4_K"


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
        values: float32 [out, in] or [n].
        name: for messages.

    Returns:
        float32 or float16 of the same shape, or uint8 [out, bytes of a row]; C-contiguous.

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
