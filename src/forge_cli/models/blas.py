"""What the C side needs before MLX is imported on Linux: a fast BLAS, and its malloc set up."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import tempfile
import warnings
from pathlib import Path

from forge_cli.core.places import cache_dir


def preload_blas() -> str | None:
    """Load OpenBLAS in front of the BLAS that MLX links; warn when that fails.

    Returns:
        The path of the library, or None where MLX keeps its own (macOS, or a failure).
    """
    if sys.platform != "linux":
        return None
    if "mlx.core" in sys.modules:
        warnings.warn("mlx was imported before Forge: GEMM stays slow", stacklevel=2)
        return None
    try:
        library = _site_file("cmeel.prefix/lib", "libopenblas.so.0")
        try:
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        except OSError:
            # Most often libgfortran is not installed system-wide.
            _load_gfortran()
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        warnings.warn(
            f"no optimised BLAS ({error}): training will be about 30 times slower; "
            "mend it with: pip install cmeel-openblas",
            stacklevel=2,
        )
        return None
    return str(library)


def _load_gfortran() -> None:
    """Load the libgfortran that the MLX wheel carries, under the name OpenBLAS asks for.

    The wheel's copy has a hash in its SONAME, so the loader would not take it for
    `libgfortran.so.5`. A copy with the plain SONAME goes into the cache. (The new name
    is shorter, so it fits into the string table in place.)
    """
    hashed = _site_file("mlx_cpu.libs", "libgfortran-*.so.5*")
    plain = cache_dir() / "blas" / hashed.name / "libgfortran.so.5"
    if not plain.exists():
        soname = hashed.name.encode() + b"\0"
        content = hashed.read_bytes()
        if content.count(soname) != 1:
            raise OSError(f"{hashed.name}: unexpected layout")
        plain.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=plain.parent, delete=False) as stream:
            stream.write(content.replace(soname, b"libgfortran.so.5".ljust(len(soname), b"\0")))
        Path(stream.name).replace(plain)
    ctypes.CDLL(str(_site_file("mlx_cpu.libs", "libquadmath-*")), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(plain), mode=ctypes.RTLD_GLOBAL)


def _site_file(folder: str, pattern: str) -> Path:
    """A file that another wheel put beside the `mlx` package."""
    spec = importlib.util.find_spec("mlx")
    for place in spec.submodule_search_locations or [] if spec else []:
        found = sorted((Path(place).parent / folder).glob(pattern))
        if found:
            return found[0]
    raise OSError(f"{folder}/{pattern} not found beside mlx")


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next array instead of giving it back.

    MLX on the CPU asks for each array anew. Where several large ones are alive, freed ones go back
    to the system, and to touch fresh pages takes twice the time of a sum over them
    (`benchmarks/train_kernels.py`).
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return  # a C library that is not glibc
    # M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h.
    for option, value in ((-8, 1), (-3, 1 << 30), (-1, (1 << 31) - 1)):
        mallopt(option, value)
