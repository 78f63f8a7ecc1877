"""Which p-values are corrected together."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path

import pytest
from test_judge import ORACLE, OTHER, row

from forge_cli.evaluate.ask import Heard
from forge_cli.evaluate.asked import Question
from forge_cli.evaluate.pairing import Pair, make_pairs

METRICS = ["answer_f1", "exact_match", "quote_correct", "quote_precision", "abstention"]
ROW = row(ORACLE, OTHER)
FILES = [ROW.origin.model_copy(update={"path": f"{number // 2}.py"}) for number in range(24)]
QUESTIONS = [Question("given", ROW.model_copy(update={"origin": origin})) for origin in FILES]


def judged(decisive: Collection[str]) -> dict[str, Pair]:
    """Quotes are right in somewhat more rows; the other metrics are a coin's tosses."""
    coin = random.Random(5)
    scores: dict[str, list[dict[str, float]]] = {"base": [], "tuned": []}
    for number in range(len(QUESTIONS)):
        for side, own in scores.items():
            own.append({name: float(coin.random() < 0.5) for name in METRICS})
            own[-1]["quote_correct"] = float(side == "tuned" and number % 6 == 0)
    heard = {name: Heard() for name in scores}
    pairs = make_pairs(
        ["base", "tuned"], QUESTIONS, [], heard, scores, resamples=2000, seed=0, decisive=decisive
    )
    return {f"{pair.condition}.{pair.metric}": pair for pair in pairs}


def test_what_decides_is_not_weakened_by_what_is_only_looked_at() -> None:
    alone, among = judged(["given.quote_correct"]), judged([])
    name = "given.quote_correct"
    assert list(alone) == list(among) == [f"given.{metric}" for metric in METRICS]
    assert alone[name].found.p_corrected == alone[name].found.p == among[name].found.p
    assert among[name].found.p_corrected == pytest.approx(5 * among[name].found.p)
    assert alone[name].found.verdict == "better"
    assert among[name].found.verdict == "no difference shown"
    others = [alone[other].found for other in alone if other != name]
    least = min(found.p for found in others)
    assert min(found.p_corrected for found in others) == pytest.approx(min(1, 4 * least))


def test_two_that_decide_are_corrected_for_two() -> None:
    found = judged(["given.quote_correct", "given.answer_f1"])["given.quote_correct"].found
    assert found.p_corrected == pytest.approx(2 * found.p)


def test_sides_of_equal_skill_are_seldom_told_apart_and_by_rows_alone_too_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from verdicts import simulate  # type: ignore[import-not-found]

    trials = 80
    found = simulate(trials, 20, gain=0.0, resamples=600)
    # 80 trials at 5 %: the binomial's 0.975 is 8.
    assert trials - found["no difference shown"] <= 8
    assert found["naive"] >= 0.08 * trials
    # Fewer resamples could not make a p that outlives the correction.
    gained = simulate(20, 40, gain=0.5, resamples=1000)
    assert gained["better"] >= 15, "and a gain that is great is seen"
