"""What the machine offers, and what is missing."""

from __future__ import annotations

import platform
import shutil
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One line of the examination; `optional`: Forge runs without it."""

    name: str
    value: str
    ok: bool = True
    optional: bool = False


def examine(host: str, model: str) -> list[Finding]:
    """Look at everything that a run needs. Takes a few seconds; changes nothing."""
    from forge_cli.models.backend import BLAS, device_memory, on_gpu

    free = shutil.disk_usage(Path.cwd()).free
    speed = _gemm_speed()
    return [
        Finding("machine", f"{platform.platform()}, Python {platform.python_version()}"),
        Finding("mlx", f"{version('mlx')} on {'the GPU' if on_gpu() else 'the CPU'}"),
        Finding("memory", f"{device_memory() / 1e9:.1f} GB for a model"),
        Finding(
            "BLAS",
            f"{Path(BLAS).name if BLAS else 'as MLX links it'}: float32 GEMM {speed:.0f} GFLOP/s",
            ok=speed > 20,
        ),
        Finding("disk", f"{free / 1e9:.1f} GB free here", ok=free > 2e9),
        _model(model),
        _llama_cpp(),
        _ollama(host),
    ]


def _gemm_speed() -> float:
    """GFLOP/s of a float32 GEMM 1024 × 576 × 1536, best of 5."""
    from forge_cli.models.backend import mx

    a, b = mx.random.normal((1024, 576)), mx.random.normal((576, 1536))
    mx.eval(a, b)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        mx.eval(a @ b)
        best = min(best, time.perf_counter() - started)
    return 2 * 1024 * 576 * 1536 / best / 1e9


def _model(name: str) -> Finding:
    from forge_cli.core.errors import ForgeError
    from forge_cli.models.resolve import BUILT_IN, packaged

    if name not in BUILT_IN:
        return Finding("model", f"{name} (looked up when it is used)")
    try:
        return Finding("model", f"{name}, {packaged(name).stat().st_size / 1e6:.0f} MB")
    except ForgeError as error:
        return Finding("model", f"{error.message}: {error.hint}", ok=False)


def _llama_cpp() -> Finding:
    from forge_cli.models.llamacpp import available

    if available():
        return Finding("llama.cpp", "installed; exports are checked")
    hint = "not installed: pip install 'forge-cli[parity]'"
    return Finding("llama.cpp", hint, ok=False, optional=True)


def _ollama(host: str) -> Finding:
    import httpx

    try:
        answer = httpx.get(f"{host}/api/version", timeout=2)
        return Finding("Ollama", f"{answer.json()['version']} at {host}")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError):
        hint = f"no server at {host} (needed to deploy: ollama serve)"
        return Finding("Ollama", hint, ok=False, optional=True)
