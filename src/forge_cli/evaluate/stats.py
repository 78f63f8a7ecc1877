"""Paired differences with intervals, resampled by cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

# Below these no interval is worth a verdict: a percentile interval over a handful of clusters
# is too narrow.
_MIN_ROWS, _MIN_CLUSTERS = 10, 6


@dataclass(frozen=True)
class Comparison:
    """Two sides on the same rows.

    Attributes:
        base, tuned: means over rows.
        difference: tuned − base, with its 95 % interval [low, high].
        n, clusters: rows, and the files they come from.
        verdict: better, worse, no difference shown, or not enough samples.
    """

    base: float
    tuned: float
    difference: float
    low: float
    high: float
    n: int
    clusters: int
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compare(
    base: Sequence[float],
    tuned: Sequence[float],
    clusters: Sequence[str],
    *,
    lower_is_better: bool,
    resamples: int,
    seed: int,
) -> Comparison:
    """The paired percentile bootstrap over clusters (Efron & Tibshirani 1993, chapter 13).

    Rows about one file are alike, so whole files are drawn, with replacement: rows drawn
    singly would give an interval that is too narrow.

    Args:
        base, tuned: one value per row, in the same order.
        clusters: the file of each row.
    """
    left, right = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    difference = right - left
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    totals = np.bincount(index, weights=difference)
    sizes = np.bincount(index).astype(np.float64)
    draws = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    means = totals[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = (float(x) for x in np.percentile(means, [2.5, 97.5]))
    return Comparison(
        base=float(left.mean()),
        tuned=float(right.mean()),
        difference=float(difference.mean()),
        low=low,
        high=high,
        n=len(difference),
        clusters=len(names),
        verdict=_verdict(low, high, len(difference), len(names), lower_is_better),
    )


def _verdict(low: float, high: float, rows: int, clusters: int, lower_is_better: bool) -> str:
    if rows < _MIN_ROWS or clusters < _MIN_CLUSTERS:
        return "not enough samples"
    if low <= 0 <= high:
        return "no difference shown"
    return "better" if (high < 0) == lower_is_better else "worse"
