"""Paired comparisons of two sides, and one verdict over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from forge_cli.evaluate.statistics.clustered import clustered_mean
from forge_cli.evaluate.statistics.rates import holm

# Below these no interval is worth a verdict (`benchmarks/coverage.py`: from 8 clusters it holds).
MIN_ROWS, MIN_CLUSTERS = 10, 8
LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """Two sides on the same rows.

    Attributes:
        base, tuned: means over rows, of the reference and of the side compared with it.
        difference: tuned − base, with its 95 % interval [low, high].
        n, clusters: rows, and the files they come from.
        p: two-sided; p_corrected: after Holm, over those read together (see `correct`).
        detectable: the smallest difference that this sample shows in 80 % of cases (None: unknown).
        verdict: better, worse, no difference shown, or not enough samples.
    """

    base: float
    tuned: float
    difference: float
    low: float
    high: float
    n: int
    clusters: int
    p: float
    p_corrected: float
    detectable: float | None
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
    """The paired difference of two sides (see `clustered.clustered_mean`).

    Args:
        base, tuned: one value per row, in the same order.
        clusters: the file of each row.
    """
    left, right = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    found = clustered_mean(list(right - left), clusters, resamples=resamples, seed=seed)
    if found.rows < MIN_ROWS or found.clusters < MIN_CLUSTERS:
        verdict = "not enough samples"
    elif found.low <= 0 <= found.high:
        verdict = "no difference shown"
    else:
        verdict = "better" if (found.high < 0) == lower_is_better else "worse"
    return Comparison(
        base=float(left.mean()),
        tuned=float(right.mean()),
        difference=found.mean,
        low=found.low,
        high=found.high,
        n=found.rows,
        clusters=found.clusters,
        p=found.p,
        p_corrected=found.p,
        detectable=None if math.isnan(found.detectable) else found.detectable,
        verdict=verdict,
    )


def correct(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with p-values corrected for how many are read together.

    A verdict that does not outlive the correction becomes "no difference shown". Those without
    enough samples for a verdict are not read, whatever their values: they count for nothing.
    """
    read = [at for at, c in enumerate(comparisons) if c.verdict != "not enough samples"]
    found = list(comparisons)
    for at, p in zip(read, holm([comparisons[at].p for at in read]), strict=True):
        lost = found[at].verdict in ("better", "worse") and p > LEVEL
        verdict = "no difference shown" if lost else found[at].verdict
        found[at] = replace(found[at], p_corrected=p, verdict=verdict)
    return found
