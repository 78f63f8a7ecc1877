"""How often 95 % intervals hold the truth when rows come in files: ours beside the usual ones.

python benchmarks/coverage.py [TRIALS]

Differences of mean 0 (or known mean) are drawn for files of equal and of unequal size: normal,
skewed (gamma), and paired 0/1 scores; with an effect of the file on all its rows. Methods:
rows     the percentile bootstrap of rows drawn singly (what most reports do)
files    the percentile bootstrap of whole files
t        Student's t, jackknife over files, degrees of freedom by the files' sizes
forge    `evaluate.statistics.clustered_mean`: the wider of t and the bootstrap-t over files
Printed: per cent of trials in which the interval holds the truth; 93-97 is what it promises.
"""

from __future__ import annotations

import sys

import numpy as np

from forge_cli.evaluate.statistics.clustered import clustered_mean
from forge_cli.evaluate.statistics.student import t_quantile

KINDS, FILES, RESAMPLES = ("normal", "skewed", "binary"), (8, 12, 20, 40), 1000
METHODS = ("rows", "files", "t", "forge")


def draw(rng: np.random.Generator, kind: str, files: int, *, equal: bool) -> tuple[list, list]:
    """Differences and the file of each."""
    values, names = [], []
    for name, size in enumerate(
        [5] * files if equal else np.maximum(1, rng.geometric(0.18, files))
    ):
        if kind == "binary":
            before = rng.beta(1, 1)
            after = np.clip(before + rng.normal(0, 0.25), 0, 1)
            own = (rng.random(size) < after).astype(float) - (rng.random(size) < before)
        elif kind == "skewed":
            own = rng.gamma(3, 0.6) + rng.gamma(3, 0.4, size) - 3.0
        else:
            own = rng.normal(0, 1) + rng.normal(0, 0.7, size)
        values += [float(value) for value in own]
        names += [str(name)] * int(size)
    return values, names


def intervals(
    rng: np.random.Generator, values: list[float], names: list[str], seed: int
) -> dict[str, tuple[float, float]]:
    """One interval a method."""
    x, index = np.array(values), np.array(names, int)
    sums, sizes = np.bincount(index, weights=x), np.bincount(index).astype(float)
    count = len(sums)
    rows = x[rng.integers(0, len(x), (RESAMPLES, len(x)))].mean(axis=1)
    drawn = rng.integers(0, count, (RESAMPLES, count))
    files = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    ours = clustered_mean(values, names, resamples=RESAMPLES, seed=seed)
    freedom = max(1.0, sizes.sum() ** 2 / (sizes**2).sum() - 1)
    reach = t_quantile(0.975, freedom) * ours.error
    return {
        "rows": tuple(np.percentile(rows, [2.5, 97.5])),
        "files": tuple(np.percentile(files, [2.5, 97.5])),
        "t": (ours.mean - reach, ours.mean + reach),
        "forge": (ours.low, ours.high),
    }


def main() -> None:
    """Print the table."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(f"{'files':>5}  {'differences':20}" + "".join(f"{method:>8}" for method in METHODS))
    for files in FILES:
        for kind in KINDS:
            for equal in (True, False):
                rng, held = np.random.default_rng(files), dict.fromkeys(METHODS, 0)
                for seed in range(trials):
                    values, names = draw(rng, kind, files, equal=equal)
                    for method, (low, high) in intervals(rng, values, names, seed).items():
                        held[method] += low <= 0 <= high
                what = f"{kind}, {'equal' if equal else 'unequal'}"
                rates = "".join(f"{100 * held[method] / trials:8.1f}" for method in METHODS)
                print(f"{files:5}  {what:20}{rates}", flush=True)


if __name__ == "__main__":
    main()
