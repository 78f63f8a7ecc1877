"""Rates with intervals, corrected p-values, and pass@k."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_Z = 1.959963984540054  # of 95 %


def wilson(successes: float, n: float) -> tuple[float, float]:
    """The 95 % score interval of a rate (Wilson 1927); (0, 1) where n is 0."""
    if n <= 0:
        return 0.0, 1.0
    rate, z2 = successes / n, _Z * _Z
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def clustered_wilson(hits: Sequence[bool], clusters: Sequence[str]) -> tuple[float, float]:
    """Wilson's interval for rows in clusters: n is divided by the design effect (Kish 1965).

    The design effect is the variance between clusters over that of rows drawn singly, at least 1.
    """
    x = np.asarray(hits, dtype=np.float64)
    rate, n = float(x.mean()) if len(x) else 0.0, float(len(x))
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    count, single = len(names), rate * (1 - rate) / max(n, 1)
    if count < 2 or not single:
        return wilson(rate * count, count)
    residuals = np.bincount(index, weights=x - rate)
    between = count / (count - 1) * float((residuals**2).sum()) / n**2
    effective = n / max(1.0, between / single)
    return wilson(rate * effective, effective)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm 1979), in the given order."""
    adjusted, least = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = least
    return adjusted


def pass_at_k(n: int, correct: int, k: int) -> float:
    """1 − C(n − c, k)/C(n, k), unbiased (Chen et al. 2021, arXiv 2107.03374, eq. 1).

    Args:
        n: samples of a problem, of which `correct` passed; at least `k`.
    """
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - correct + 1, n + 1))
