"""The one door to MLX: every module takes `mx` and `nn` from here.

On Linux the `mlx-cpu` wheel links reference BLAS (about 2-6 GFLOP/s). An optimised
BLAS that is loaded with RTLD_GLOBAL before `mlx.core` takes its place, so importing
this module must come before any other import of MLX (`tests/test_architecture.py`
holds everyone to that). On macOS nothing is preloaded.
"""

from __future__ import annotations

from pathlib import Path

from forge_cli.models.blas import keep_freed_memory, preload_blas

BLAS = preload_blas()
keep_freed_memory()

import mlx.core as mx  # noqa: E402
import mlx.nn as nn  # noqa: E402

if mx.default_device() == mx.cpu:
    # Compiled functions (mlx-lm has some) call g++ at run time there: about 20 s for the
    # first step, and a failure on machines without a compiler.
    mx.disable_compile()

__all__ = ["BLAS", "compute_dtype", "device_memory", "mx", "nn", "on_gpu"]


def on_gpu() -> bool:
    """Whether MLX computes on a GPU (Metal) here."""
    return bool(mx.default_device() == mx.gpu)


def compute_dtype() -> mx.Dtype:
    """bfloat16 on the GPU; float32 on the CPU, where half types are 30-700 times slower."""
    return mx.bfloat16 if on_gpu() else mx.float32


def device_memory() -> int:
    """Bytes of memory that a model may use: the GPU's recommended working set, else free RAM."""
    if on_gpu():  # Metal only; not run on Linux
        return int(mx.device_info()["max_recommended_working_set_size"])
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
