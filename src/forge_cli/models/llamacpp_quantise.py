"""llama.cpp's own quantiser: the reference that Forge's files are compared with.

Source of the declarations: llama.cpp `include/llama.h`, `llama_model_quantize_params`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from ctypes import POINTER, c_bool, c_char_p, c_int32, c_size_t, c_uint32, c_void_p
from pathlib import Path

import numpy as np

from forge_cli.core.errors import ForgeError
from forge_cli.models.llamacpp import ROOM, last_error, load_library


class _QuantizeParams(ctypes.Structure):
    _fields_ = (
        ("nthread", c_int32),
        ("ftype", c_int32),
        ("types", c_int32 * 2),
        ("flags", c_bool * 8),  # some, and padding
        ("imatrix", c_void_p),
        ("room", ROOM),
    )


class _Importance(ctypes.Structure):
    _fields_ = (("name", c_char_p), ("data", c_void_p), ("size", c_size_t))


def quantise(
    source: Path, target: Path, file_type: int, importance: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write `source` as another type.

    Args:
        file_type: a `gguf.LlamaFileType`, such as 15 for Q4_K_M.
        importance: by GGUF name, float32 [in] or [experts, in].

    Raises:
        ForgeError: it fails.
    """
    library = load_library()
    default = library.llama_model_quantize_default_params
    default.restype, default.argtypes = _QuantizeParams, ()
    call = library.llama_model_quantize
    call.restype, call.argtypes = c_uint32, (c_char_p, c_char_p, POINTER(_QuantizeParams))
    params = default()
    params.ftype = file_type
    if importance:
        told = [
            _Importance(name.encode(), means.ctypes.data, means.size)
            for name, means in importance.items()
        ]
        entries = (_Importance * (len(told) + 1))(*told)  # the last, empty, ends it
        params.imatrix = ctypes.cast(entries, c_void_p)
    last_error()  # what was said before is not about this
    paths = os.fsencode(source), os.fsencode(target)
    if call(*paths, ctypes.byref(params)):
        raise ForgeError(
            f"{source}: llama.cpp cannot quantise it: {last_error()}", "export it again"
        )
