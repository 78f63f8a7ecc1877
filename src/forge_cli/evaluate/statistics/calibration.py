"""Whether a model that is sure is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BINS = 10
_MIN_ROWS = 20  # below these a bin holds two rows


@dataclass(frozen=True)
class Calibration:
    """Confidence held against what was right.

    Attributes:
        error: expected calibration error over bins of as many rows each (Nguyen & O'Connor
            2015); 0 is best. None with fewer than 20 rows.
        brier: mean squared difference of confidence and right (Brier 1950).
        curve: (mean confidence, share that is right, rows) of each bin.
    """

    error: float | None
    brier: float
    curve: list[tuple[float, float, int]]


def calibrate(confidence: Sequence[float], right: Sequence[float]) -> Calibration:
    """The calibration of answers.

    Args:
        confidence: of each answer, 0 to 1. right: 1 where it is exact, else 0.
    """
    sure, hit = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    order = np.argsort(sure, kind="stable")
    bins = [
        part for part in np.array_split(order, min(_BINS, max(1, len(order) // 2))) if part.size
    ]
    curve = [(float(sure[b].mean()), float(hit[b].mean()), len(b)) for b in bins]
    gap = sum(abs(mean - share) * rows for mean, share, rows in curve) / max(1, len(order))
    return Calibration(
        error=gap if len(order) >= _MIN_ROWS else None,
        brier=float(((sure - hit) ** 2).mean()) if len(order) else 0.0,
        curve=curve,
    )
