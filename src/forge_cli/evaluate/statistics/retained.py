"""What share of a gain a third side keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from forge_cli.evaluate.statistics.clustered import clustered_mean


@dataclass(frozen=True)
class Retained:
    """A share of the gain in loss, with its 95 % interval by file; over 1 is more than all.

    Attributes:
        n, clusters: rows, and the files they come from.
    """

    share: float
    low: float
    high: float
    n: int
    clusters: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def retained(
    base: Sequence[float],
    tuned: Sequence[float],
    exported: Sequence[float],
    clusters: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> Retained | None:
    """The mean of base − exported over the mean of base − tuned; None where nothing was gained.

    The interval is that of the mean of (base − exported) − share · (base − tuned), over the mean
    gain: a ratio of means, linearised (Cochran 1977, section 6.4), with clusters.

    Args:
        base, tuned, exported: losses, one value per row, in the same order.
        clusters: the file of each row.
    """
    before, after, then = (np.asarray(side, np.float64) for side in (base, tuned, exported))
    gain, kept = before - after, before - then
    if not gain.size or gain.mean() <= 0:
        return None
    share = float(kept.mean() / gain.mean())
    found = clustered_mean(list(kept - share * gain), clusters, resamples=resamples, seed=seed)
    low, high = (share + float(end / gain.mean()) for end in (found.low, found.high))
    return Retained(share, low, high, found.rows, found.clusters)
