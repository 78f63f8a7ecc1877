"""What an exported file keeps of the gain: by hand, and intervals that hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from forge_cli.evaluate.statistics.retained import retained

FILES = [f"{n}.py" for n in range(10)]


def test_by_hand() -> None:
    found = retained([2.0] * 10, [1.0] * 10, [1.1] * 10, FILES, resamples=200, seed=0)
    assert found is not None
    assert (found.share, found.low, found.high) == pytest.approx((0.9, 0.9, 0.9))
    assert (found.n, found.clusters) == (10, 10)
    # A gain of 1 and of 3, of which 1 and 1 are kept.
    uneven = retained([2.0, 4.0] * 5, [1.0] * 10, [1.0, 3.0] * 5, FILES, resamples=200, seed=0)
    assert uneven is not None and uneven.share == pytest.approx(0.5)
    assert uneven.low < 0.5 < uneven.high


@pytest.mark.parametrize("tuned", [2.0, 2.5])
def test_without_a_gain_there_is_nothing_to_keep(tuned: float) -> None:
    assert retained([2.0] * 10, [tuned] * 10, [1.0] * 10, FILES, resamples=99, seed=0) is None
    assert retained([], [], [], [], resamples=99, seed=0) is None


def test_the_interval_holds_the_truth() -> None:
    rng, held, trials = np.random.default_rng(3), 0, 200
    for seed in range(trials):
        names = [str(file) for file in range(16) for _ in range(3)]
        gain = np.repeat(rng.gamma(4, 0.25, 16), 3) * rng.uniform(0.5, 1.5, 48)
        kept = 0.9 * gain + np.repeat(rng.normal(0, 0.1, 16), 3) + rng.normal(0, 0.1, 48)
        found = retained(list(gain), [0.0] * 48, list(gain - kept), names, resamples=300, seed=seed)
        assert found is not None
        held += found.low <= 0.9 <= found.high
    # 200 trials of 95 %: the binomial's 0.025 is 183.
    assert held >= 183
