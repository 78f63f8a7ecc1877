"""How long `forge --help` takes, beside a Python that only starts: medians of whole processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 15


def seconds(*args: str) -> float:
    """Median wall time of a command, in seconds, after one warm-up."""
    times = []
    for _ in range(RUNS + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, *args], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    """Print both medians and their ratio."""
    bare, forge = seconds("-c", "pass"), seconds("-m", "forge_cli", "--help")
    print(f"python -c pass: {bare:.3f} s; forge --help: {forge:.3f} s ({forge / bare:.1f}x)")
    print(f"budget 0.5 s: {'met' if forge < 0.5 else 'NOT met'}")


if __name__ == "__main__":
    main()
