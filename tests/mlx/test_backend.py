"""The BLAS that Forge puts in front of MLX's own: found, fast, and missed loudly."""

from __future__ import annotations

import subprocess
import sys

import pytest

from forge_cli.models import backend

linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS keeps its own BLAS")

# Best of several: what else the machine does can only make a run slower. The pauses make a
# busy scheduler give each run its cores at once.
_TIME = """
import sys, time
{preload}
import mlx.core as mx
a, b = mx.random.normal((1024, 576)), mx.random.normal((576, 1536))
mx.eval(a, b)
best = 1e9
for _ in range({runs}):
    time.sleep(0.04)
    start = time.perf_counter()
    mx.eval(a @ b)
    best = min(best, time.perf_counter() - start)
print(best)
"""


def gemm_seconds(preload: str, runs: int) -> float:
    code = _TIME.format(preload=preload, runs=runs)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no optimised BLAS" not in done.stderr
    return float(done.stdout)


@linux
def test_gemm_is_at_least_20_times_the_reference() -> None:
    fast = gemm_seconds("import forge_cli.models.backend", 60)
    reference = gemm_seconds("", 2)
    assert reference / fast >= 20, f"{reference:.3f} s against {fast:.4f} s"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@linux
def test_a_missing_blas_is_a_warning_with_its_cure_and_mlx_still_works() -> None:
    done = run(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'mlx' else find(name, package)\n"
        "from forge_cli.models.backend import BLAS, mx\n"
        "print(BLAS, (mx.ones((2, 2)) @ mx.ones((2, 2))).sum().item())"
    )
    assert done.stdout.split() == ["None", "8.0"], done.stderr
    assert "no optimised BLAS" in done.stderr
    assert "pip install cmeel-openblas" in done.stderr
    assert "libopenblas.so.0 not found" in done.stderr


@linux
def test_mlx_imported_first_is_a_warning() -> None:
    done = run("import mlx.core\nimport forge_cli.models.backend as b\nprint(b.BLAS)")
    assert done.stdout.strip() == "None"
    assert "mlx was imported before Forge" in done.stderr


@linux
def test_the_blas_is_the_one_beside_mlx() -> None:
    assert backend.BLAS is not None
    assert backend.BLAS.endswith("libopenblas.so.0")


def test_nothing_is_preloaded_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delitem(sys.modules, "mlx.core")
    assert backend.preload_blas() is None


def test_the_cpu_computes_in_float32() -> None:
    expected = backend.mx.bfloat16 if backend.on_gpu() else backend.mx.float32
    assert backend.compute_dtype() == expected
    assert backend.device_memory() > 1 << 28
