"""The mean of differences between paired rows that come in clusters, with an interval.

Rows about one file are alike. An interval for rows drawn singly is too narrow by a factor, and
the plain bootstrap of whole files is too narrow where files are few or of unequal size:
`benchmarks/coverage.py` shows both, and what is done here instead holding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forge_cli.evaluate.statistics.student import t_cdf, t_quantile

_DRAWN_AT_ONCE = 2_000_000  # numbers
# Of the sample's own error, the least that a resample is taken to have: with few files some
# resamples draw nearly one value alone, and an interval would grow without bound by them.
_LEAST_ERROR = 0.4


@dataclass(frozen=True)
class Clustered:
    """A mean over rows, and how far it may be trusted.

    Attributes:
        mean: over rows. low, high: its 95 % interval.
        error: standard error, by the jackknife over clusters.
        p: two-sided, of the mean being 0.
        detectable: the smallest true mean that a sample like this shows in 80 % of cases.
        rows, clusters: how many.
    """

    mean: float
    low: float
    high: float
    error: float
    p: float
    detectable: float
    rows: int
    clusters: int


def clustered_mean(
    values: Sequence[float], clusters: Sequence[str], *, resamples: int, seed: int
) -> Clustered:
    """The mean of `values`, one a row, with the wider of two 95 % intervals.

    One is Student's t with the jackknife's error over clusters (Efron & Tibshirani 1993,
    chapter 11) and one degree of freedom less than there are clusters of equal size that would
    weigh the same (Kish 1965): right where clusters are unequal. The other is the bootstrap-t
    over clusters (chapter 12), right where the values are skewed.

    Args:
        values: differences, float [n]. clusters: the file of each.
        resamples: of the clusters, drawn with replacement.
    """
    x = np.asarray(values, dtype=np.float64)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    count = len(names)
    sums = np.bincount(index, weights=x)
    sizes = np.bincount(index).astype(np.float64)
    mean = float(x.mean())
    if count < 2:  # nothing is known of how clusters differ
        return Clustered(mean, mean, mean, math.nan, 1.0, math.nan, len(x), count)
    error = _jackknife(sums, sizes)
    if error == 0:
        # All alike: of how they would differ nothing is known, and p is that of their signs.
        p = 1.0 if mean == 0 else 2.0 ** (1 - count)
        return Clustered(mean, mean, mean, 0.0, p, math.nan, len(x), count)
    freedom = max(1.0, sizes.sum() ** 2 / (sizes**2).sum() - 1)
    reach = t_quantile(0.975, freedom) * error
    scores = _studentised(sums, sizes, mean, error, resamples, seed)
    below, above = np.quantile(scores, [0.025, 0.975])
    seen = mean / error
    # Each tail by itself, as the interval has it.
    tail = min((scores >= seen).sum(), (scores <= seen).sum())
    p_drawn = min(1.0, 2 * float(1 + tail) / (1 + len(scores)))
    return Clustered(
        mean=mean,
        low=min(mean - reach, mean - float(above) * error),
        high=max(mean + reach, mean - float(below) * error),
        error=error,
        p=max(2 * t_cdf(-abs(seen), freedom), p_drawn),
        detectable=(t_quantile(0.975, freedom) + t_quantile(0.8, freedom)) * error,
        rows=len(x),
        clusters=count,
    )


def _jackknife(sums: np.ndarray, sizes: np.ndarray) -> float:
    """Standard error of Σ sums / Σ sizes when one cluster after another is left out."""
    count = len(sums)
    without = (sums.sum() - sums) / (sizes.sum() - sizes)
    return float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))


def _studentised(
    sums: np.ndarray, sizes: np.ndarray, mean: float, error: float, resamples: int, seed: int
) -> np.ndarray:
    """(mean* − mean) / error* of each resample, whose error* is at least a part of `error`."""
    rng, count = np.random.default_rng(seed), len(sums)
    part = max(1, _DRAWN_AT_ONCE // count)
    found = []
    for start in range(0, resamples, part):
        drawn = rng.integers(0, count, (min(part, resamples - start), count))
        own_sums, own_sizes = sums[drawn], sizes[drawn]
        total = own_sizes.sum(axis=1)
        means = own_sums.sum(axis=1) / total
        residuals = own_sums - means[:, None] * own_sizes
        errors = np.sqrt(count / (count - 1) * (residuals**2).sum(axis=1)) / total
        found.append((means - mean) / np.maximum(errors, _LEAST_ERROR * error))
    return np.concatenate(found)
