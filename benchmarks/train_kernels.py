"""What Forge's own CPU code gains over MLX's, and what compiling an update does.

python benchmarks/train_kernels.py

Nanoseconds an element (median of 15 runs, both in turn); attention of SmolLM2's shape, forward
and backward, in milliseconds; an update by AdamW of 224 adapter matrices, compiled and plain; and
sums over arrays of three sizes when freed memory goes back to the system, as it does without
`models/blas.py`. On macOS, where Forge changes nothing, it says so.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from forge_cli.models import attention, cpu_math
from forge_cli.models.backend import mx, nn, on_gpu
from forge_cli.train.optimisers import make_optimiser

RUNS, SHAPE = 15, (900, 1536)
# (rows, queries, keys): a prefix of documents, and five questions behind one.
LENGTHS = {"prefix": (1, 734, 734), "5 questions": (5, 60, 794)}

_CHAIN = """
import {first}time
import mlx.core as mx
def work(x):
    y = x
    for _ in range(8):  # several arrays are alive at once
        t = y * 0.5
        s = t + x
        y = t - (s - x)
    mx.eval(y)
arrays = [mx.zeros(shape) for shape in ((900, 1536), (384, 800), (9, 384, 800))]
for x in arrays:
    work(x)
start = time.perf_counter()
for x in arrays * 10:
    work(x)
seconds = time.perf_counter() - start
print(seconds / 10 / 32 / sum(x.size for x in arrays) * 1e9)
"""


def pair(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of two works, run in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS + 1):
        for work, taken in zip((ours, theirs), times, strict=True):
            started = time.perf_counter()
            mx.eval(work())
            taken.append(time.perf_counter() - started)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def line(name: str, times: tuple[float, float], factor: float, unit: str) -> None:
    """One row of the table; the times are multiplied by `factor`."""
    ours, theirs = (factor * time for time in times)
    print(f"{name:28}{ours:10.2f}{theirs:10.2f} {unit:4}{theirs / ours:8.1f}x")


def main() -> None:
    """Print the table."""
    if on_gpu():
        print("not run: on the GPU Forge uses MLX's own")
        return
    x = mx.random.normal(SHAPE)
    mx.eval(x)
    each = 1e9 / x.size
    print(f"{'':28}{'Forge':>10}{'MLX':>10}")
    line("exp", pair(lambda: cpu_math.exp(x), lambda: mx.exp(x)), each, "ns")
    plain = cpu_math._nn_silu
    line("silu", pair(lambda: cpu_math.silu(x), lambda: plain(x)), each, "ns")

    def slope(f: Callable[[mx.array], mx.array]) -> mx.array:
        return mx.grad(lambda a: f(a).sum())(x)

    slopes = pair(lambda: slope(cpu_math.silu), lambda: slope(plain))
    line("silu, gradient", slopes, each, "ns")
    for name, (rows, length, total) in LENGTHS.items():
        q = mx.random.normal((rows, 9, length, 64))
        k, v = mx.random.normal((2, rows, 3, total, 64))
        mx.eval(q, k, v)

        def both(f: Callable[..., mx.array], *arrays: mx.array) -> object:
            return mx.grad(lambda *a: f(*a, scale=0.125, mask="causal").sum(), (0, 1, 2))(*arrays)

        times = pair(
            lambda a=(q, k, v): both(attention.attend, *a),  # type: ignore[misc]
            lambda a=(q, k, v): both(attention._fused, *a),  # type: ignore[misc]
        )
        line(f"attention, {name}", times, 1e3, "ms")
    updates = (update(compiled=True), update(compiled=False))
    line("update, compiled", pair(*updates), 1e3, "ms")
    if sys.platform == "linux":
        ours, theirs = (kept_memory(first) for first in ("forge_cli.models.backend, ", ""))
        line("sums of arrays in turn", (ours, theirs), 1, "ns")


def update(*, compiled: bool) -> Callable[[], object]:
    """A step of AdamW over the adapters of rank 8 of 16 blocks of SmolLM2's width."""
    model = nn.Module()
    shapes = [(8, 576), (576, 8)] * 112
    for n, shape in enumerate(shapes):
        setattr(model, f"a{n}", mx.random.normal(shape))
    gradients = {name: 0.1 * value for name, value in model.parameters().items()}
    optimiser = make_optimiser("adamw", model, weight_decay=0.0, compiled=compiled)

    def step() -> object:
        optimiser.learning_rate = 1e-3
        optimiser.update(model, gradients)
        return model.parameters(), optimiser.state

    return step


def kept_memory(first: str) -> float:
    """Nanoseconds an element in a process of its own; median of 5."""
    code = _CHAIN.format(first=first)
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True) for _ in range(5)]
    return statistics.median(float(run.stdout) for run in runs)


if __name__ == "__main__":
    main()
