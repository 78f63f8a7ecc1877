"""Intervals that hold what they promise, and verdicts by rules; by hand where that can be."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from forge_cli.evaluate.statistics import Comparison, compare, correct
from forge_cli.evaluate.statistics.calibration import calibrate
from forge_cli.evaluate.statistics.clustered import clustered_mean
from forge_cli.evaluate.statistics.rates import clustered_wilson, holm, pass_at_k, wilson
from forge_cli.evaluate.statistics.student import t_cdf, t_quantile
from forge_cli.evaluate.statistics.verdict import Rules, decide


@pytest.mark.parametrize(
    ("p", "df", "value"),
    [
        (0.975, 1, 12.7062047), (0.975, 2, 4.3026527), (0.975, 7, 2.3646243),
        (0.975, 30, 2.0422725), (0.8, 4, 0.9409646), (0.5, 3, 0.0), (0.025, 10, -2.2281389),
        (0.995, 120, 2.6174213),
    ],
)  # fmt: skip
def test_student_s_t_as_in_the_tables(p: float, df: float, value: float) -> None:
    assert t_quantile(p, df) == pytest.approx(value, abs=1e-6)
    assert t_cdf(value, df) == pytest.approx(p, abs=1e-8)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=1e-4)


def test_rows_that_repeat_their_file_tell_no_more_than_it_does() -> None:
    hits = [True] * 3 + [False]
    files = ["a", "b", "c", "d"]
    repeated = clustered_wilson(hits * 5, files * 5)
    low, high = wilson(3, 4)
    # The variance between clusters has count − 1 below it.
    assert repeated[0] < low + 1e-9 and repeated[1] > high - 1e-9
    assert clustered_wilson([True, False] * 20, [str(n) for n in range(40)]) == pytest.approx(
        wilson(20, 40), abs=0.01
    )


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("n", "correct_", "k", "value"),
    # 1 − C(n − c, k)/C(n, k)
    [(5, 2, 1, 0.4), (5, 2, 2, 0.7), (10, 3, 5, 1 - 21 / 252), (5, 5, 1, 1.0), (3, 0, 3, 0.0)],
)
def test_pass_at_k(n: int, correct_: int, k: int, value: float) -> None:
    assert pass_at_k(n, correct_, k) == pytest.approx(value)


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_with_a_success(n: int) -> None:
    for right, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([True] * right + [False] * (n - right), k))
        share = sum(map(any, subsets)) / len(subsets)
        assert pass_at_k(n, right, k) == pytest.approx(share, abs=1e-12)


def test_pass_at_k_does_not_overflow() -> None:
    assert 0.9 < pass_at_k(100_000, 30, 10_000) < 1


def sample(rng: np.random.Generator, clusters: int, kind: str) -> tuple[list[float], list[str]]:
    """Differences of mean 0 in files of unequal size."""
    values, files = [], []
    for cluster, size in enumerate(np.maximum(1, rng.geometric(0.18, clusters))):
        if kind == "binary":
            before = rng.beta(1, 1)
            drawn = (rng.random(size) < before).astype(float) - (rng.random(size) < before)
        else:
            drawn = rng.gamma(3, 0.6) + rng.gamma(3, 0.4, size) - 3.0
        values += [float(v) for v in drawn]
        files += [str(cluster)] * int(size)
    return values, files


@pytest.mark.parametrize("kind", ["binary", "skewed"])
@pytest.mark.parametrize("clusters", [8, 20])
def test_the_interval_holds_the_truth_and_one_by_rows_does_not(kind: str, clusters: int) -> None:
    rng, trials = np.random.default_rng(5), 300
    held = by_row = 0
    for seed in range(trials):
        values, files = sample(rng, clusters, kind)
        found = clustered_mean(values, files, resamples=400, seed=seed)
        held += found.low <= 0 <= found.high
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high) or 0.04 < found.p < 0.06
        single = clustered_mean(
            values, [str(n) for n in range(len(values))], resamples=400, seed=seed
        )
        by_row += single.low <= 0 <= single.high
    # 300 trials of 95 %: 0.975 and 0.025 of the binomial are 277 and 292.
    assert held / trials >= 0.92
    if clusters == 20:  # with few clusters it errs to the wide side
        assert held / trials <= 0.985
    if kind == "skewed":
        assert by_row / trials < 0.75


def test_a_difference_that_is_detectable_is_mostly_detected() -> None:
    rng, shown, trials = np.random.default_rng(1), 0, 300
    foretold = np.mean(
        [
            clustered_mean(*sample(rng, 20, "binary"), resamples=300, seed=s).detectable
            for s in range(50)
        ]
    )
    for seed in range(trials):
        values, files = sample(rng, 20, "binary")
        found = clustered_mean([v + foretold for v in values], files, resamples=300, seed=seed)
        shown += found.low > 0
    assert 0.7 <= shown / trials <= 0.9


def test_equal_sides_do_not_differ() -> None:
    files = [f"f{n % 9}" for n in range(36)]
    values = [n % 5 / 4 for n in range(36)]
    found = compare(values, values, files, lower_is_better=False, resamples=500, seed=0)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert found.verdict == "no difference shown"
    always = compare(
        values, [v + 0.5 for v in values], files, lower_is_better=False, resamples=500, seed=0
    )
    assert always.verdict == "better" and always.low == pytest.approx(0.5)


def test_one_file_shows_nothing() -> None:
    found = compare([0.0] * 20, [1.0] * 20, ["a"] * 20, lower_is_better=False, resamples=99, seed=0)
    assert found.verdict == "not enough samples" and found.detectable is None
    assert math.isfinite(found.low) and math.isfinite(found.p)


def comparison(verdict: str, *, difference: float = 0.2, p: float = 0.001) -> Comparison:
    return Comparison(0.5, 0.5 + difference, difference, 0.1, 0.3, 40, 12, p, p, 0.15, verdict)


def test_what_does_not_outlive_the_correction_is_no_difference() -> None:
    found = correct([comparison("better", p=0.02), comparison("worse", p=0.04)])
    assert [c.p_corrected for c in found] == pytest.approx([0.04, 0.04])
    assert [c.verdict for c in found] == ["better", "worse"]
    found = correct([comparison("better", p=0.03), comparison("worse", p=0.04)])
    assert [c.verdict for c in found] == ["no difference shown"] * 2


def test_what_has_too_few_samples_to_be_read_is_not_counted() -> None:
    found = correct([comparison("better", p=0.03), comparison("not enough samples", p=0.9)])
    assert [c.p_corrected for c in found] == [0.03, 0.9]
    assert [c.verdict for c in found] == ["better", "not enough samples"]


RULES = Rules(wins=["given.answer_f1", "given.quote_correct"], guards={"given.abstention": 0.05})


@pytest.mark.parametrize(
    ("f1", "quotes", "abstention", "outcome"),
    [
        ("better", "no difference shown", "no difference shown", "better"),
        ("better", "worse", "no difference shown", "broke something"),
        ("worse", "no difference shown", "better", "worse"),
        ("better", "better", "worse", "broke something"),
        ("no difference shown", "not enough samples", "better", "no difference shown"),
        ("not enough samples", "not enough samples", "better", "not enough samples"),
    ],
)
def test_one_verdict(f1: str, quotes: str, abstention: str, outcome: str) -> None:
    found = {
        "given.answer_f1": comparison(f1),
        "given.quote_correct": comparison(quotes),
        "given.abstention": comparison(abstention, difference=-0.1),
    }
    verdict = decide(found, RULES)
    assert verdict.outcome == outcome
    assert verdict.reasons and all("40 rows, 12 files" in reason for reason in verdict.reasons)
    if abstention == "worse":
        within = {**found, "given.abstention": comparison("worse", difference=-0.04)}
        assert decide(within, RULES).outcome == "better", "within the margin"


def test_guards_alone_hold_or_do_not() -> None:
    """A suite where nothing can win, such as latency."""

    def slower(by: float) -> str:
        before = [1.0 + n / 100 for n in range(12)]
        after = [value + by + n % 3 / 100 for n, value in enumerate(before)]
        files = [f"f{n}" for n in range(12)]
        found = compare(before, after, files, lower_is_better=True, resamples=1000, seed=0)
        return decide({"latency.first": found}, Rules(guards={"latency.first": 0.5})).outcome

    assert [slower(by) for by in (0.9, 0.2, -0.9)] == [
        "broke something", "no difference shown", "no difference shown",
    ]  # fmt: skip


def test_a_verdict_without_measurements_says_so() -> None:
    found = decide({}, RULES)
    assert found.outcome == "not enough samples"
    assert found.reasons == ["nothing that counts was measured"]


def test_calibration_by_hand() -> None:
    found = calibrate([0.9, 0.9, 0.1, 0.1], [1, 0, 0, 0])
    # Two bins: sure of 0.1, none right; sure of 0.9, half right.
    assert found.curve == [(0.1, 0.0, 2), (0.9, 0.5, 2)]
    assert found.brier == pytest.approx((0.01 + 0.81 + 0.01 + 0.01) / 4)
    assert found.error is None, "too few to tell"
    # Ten bins of four: three of four right where it says 0.8, one of four where it says 0.2.
    many = calibrate([0.8] * 20 + [0.2] * 20, [1, 1, 1, 0] * 5 + [1, 0, 0, 0] * 5)
    assert many.error == pytest.approx(0.05)
    perfect = calibrate([1.0] * 15 + [0.0] * 15, [1] * 15 + [0] * 15)
    assert perfect.error == 0 and perfect.brier == 0
