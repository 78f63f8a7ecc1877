"""The quality gates over comparisons by hand: which of them lets what through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forge_cli.core.errors import UsageError
from forge_cli.core.run_dir import RunDir
from forge_cli.guard.config import QualityGates
from forge_cli.guard.gates import advice, hold, parity
from forge_cli.guard.records import Gate


def found(base: float, tuned: float, verdict: str, *, spread: float = 0.05, n: int = 40) -> Any:
    difference = tuned - base
    return {
        "base": base, "tuned": tuned, "difference": difference, "low": difference - spread,
        "high": difference + spread, "n": n, "clusters": n // 3, "p": 0.01, "p_corrected": 0.01,
        "detectable": None, "verdict": verdict,
    }  # fmt: skip


NEW, OLD = (
    {"answer_loss": found(1.0, 0.4, "better"), "quote_correct": found(0.5, 0.8, "better")},
    {
        "answer_loss": found(0.4, 0.41, "no difference shown"),
        "answer_f1": found(0.7, 0.7, "no difference shown"),
        "quote_correct": found(0.8, 0.8, "no difference shown"),
    },
)
GOOD = {"new": NEW, "old": OLD}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir.open(tmp_path / "run", {"rank": 4})
    made.record(train={"rows": 40})
    return made


def lost(run: RunDir, comparison: Any = GOOD, **gates: Any) -> list[str]:
    return [g.name for g in hold(QualityGates(**gates), run, comparison) if not g.passed]


def changed(side: str, **metrics: Any) -> Any:
    return GOOD | {side: GOOD[side] | metrics}


def test_what_is_better_on_new_code_and_no_worse_on_old_passes(run: RunDir) -> None:
    gates = hold(QualityGates(), run, GOOD)
    assert [g.name for g in gates] == ["examples", "quotes", "new", "old", "forgetting"]
    assert all(g.passed for g in gates)
    assert "1.000 → 0.400 (-0.600 [-0.650, -0.550], 40 rows, 13 files): better" in gates[2].text


@pytest.mark.parametrize(
    "comparison, gates, expected",
    [
        (GOOD, {"examples": 41}, ["examples"]),
        (GOOD, {"quotes": 0.81}, ["quotes"]),
        ({"new": {}, "old": {}}, {"unknown": "pass"}, ["quotes", "forgetting"]),
        (changed("new", answer_loss=found(1, 0.99, "no difference shown")), {}, ["new"]),
        (changed("new", answer_loss=found(1, 0.99, "no difference shown")),
         {"new": "not worse"}, []),
        (changed("new", answer_loss=found(1, 1.3, "worse")), {"new": "not worse"}, ["new"]),
        (changed("old", quote_correct=found(0.8, 0.3, "worse")), {}, ["old"]),
        (changed("old", answer_loss=found(0.4, 0.46, "no difference shown")), {}, ["forgetting"]),
        (changed("old", answer_loss=found(0.4, 0.46, "no difference shown")),
         {"forgetting": 0.2}, []),
        (GOOD, {"rules": ["new.answer_loss.high < -0.5", "old.answer_f1 is not worse"]}, []),
        (GOOD, {"rules": ["new.answer_loss.high < -0.6"]}, ["rule"]),
        (GOOD, {"latency": 1.5}, ["latency"]),
        (GOOD | {"latency": {"token_seconds": found(0.02, 0.04, "worse")}}, {"latency": 1.5},
         ["latency"]),
        (GOOD | {"latency": {"token_seconds": found(0.02, 0.021, "worse")}}, {"latency": 1.5}, []),
        ({"new": NEW}, {}, []),  # a first model: there is no old code
        (GOOD, {"examples": None, "quotes": None, "new": None, "old": None, "forgetting": None},
         []),
    ],
)  # fmt: skip
def test_each_gate(run: RunDir, comparison: Any, gates: Any, expected: list[str]) -> None:
    assert lost(run, comparison, **gates) == expected


@pytest.mark.parametrize(
    "unknown, tuned, passes",
    [
        ("fail", 0.4, False), ("pass", 0.4, True), ("lean", 0.4, True), ("lean", 1.1, False),
        ("lean", 1.0, False), ("pass", 1.1, True),
    ],
)  # fmt: skip
def test_few_samples_pass_only_as_told(
    run: RunDir, unknown: str, tuned: float, passes: bool
) -> None:
    few = found(1.0, tuned, "not enough samples", n=9)
    assert ("new" not in lost(run, changed("new", answer_loss=few), unknown=unknown)) == passes


@pytest.mark.parametrize(
    "rows, lost_share, refused",
    [(16, 0.0, False), (16, 1 / 16, False), (16, 1.5 / 16, True), (4, 0.2, True)],
)
def test_one_answer_of_few_is_no_loss(
    run: RunDir, rows: int, lost_share: float, refused: bool
) -> None:
    few = found(0.7, 0.7 - lost_share, "not enough samples", n=rows)
    both = {"new": NEW, "old": OLD | {"answer_f1": few}}
    if rows < 8:  # new code would decide
        both["new"] = {}
    assert ("old" in lost(run, both)) == refused


def test_forgetting_with_few_samples_goes_by_the_mean(run: RunDir) -> None:
    few = found(0.4, 0.45, "not enough samples", spread=1.0, n=9)
    assert lost(run, changed("old", answer_loss=few)) == []
    assert lost(run, changed("old", answer_loss=few), forgetting=0.04) == ["forgetting"]
    assert lost(run, changed("old", answer_loss=few), unknown="fail") == ["forgetting"]


@pytest.mark.parametrize(
    "old, unknown, expected",
    [
        (found(0.4, 0.3, "better"), "lean", []),
        (found(0.4, 0.41, "no difference shown"), "lean", ["new"]),
        (found(0.4, 0.3, "better"), "fail", ["new"]),  # it is judged on new code or not at all
        (found(0.4, 0.3, "better", n=7), "lean", ["new"]),
    ],
)
def test_where_too_little_is_new_old_code_decides(
    run: RunDir, old: Any, unknown: str, expected: list[str]
) -> None:
    two = found(1.0, 1.1, "not enough samples", n=2)
    comparison = {"new": NEW | {"answer_loss": two}, "old": OLD | {"answer_loss": old}}
    assert lost(run, comparison, unknown=unknown) == expected
    assert lost(run, {**comparison, "new": {}}, unknown=unknown) == expected


def test_where_nothing_old_is_left_new_code_decides(run: RunDir) -> None:
    new = NEW | {"answer_f1": found(0.7, 0.75, "better")}
    gates = hold(QualityGates(), run, {"new": new, "old": {}})
    assert all(g.passed for g in gates)
    assert gates[3].text.startswith("0 old rows are too few, those of new code decide: answer_f1")
    worse = new | {"answer_f1": found(0.7, 0.2, "worse")}
    assert lost(run, {"new": worse, "old": {}}) == ["old"]
    assert "forgetting" not in lost(run, {"new": worse, "old": {}})


def test_a_rule_that_cannot_be_read_is_refused(run: RunDir) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        hold(QualityGates(rules=["nonsense"]), run, GOOD)


@pytest.mark.parametrize("name", ["quotes", "new", "latency", "parity", "examples"])
def test_more_training_is_advised_only_where_too_little_was_learned(name: str) -> None:
    failed = [Gate(name="sources", passed=True, text=""), Gate(name=name, passed=False, text="")]
    assert ("forge guard once --force" in advice(failed)) == (name in ("quotes", "new"))
    assert not advice([Gate(name=name, passed=True, text="")])


def test_files_that_were_compared_are_told(run: RunDir) -> None:
    near = {"top1_agreement": 0.912, "positions": 1184, "mean_kl": 0.0402}
    run.record(export={"parity.q4_k_m": near, "retention.q4_k_m": {"share": 1.0}})
    assert parity(run).text == (
        "q4_k_m: the likeliest token is that of the trained model at 91.2% of 1184 positions, "
        "mean KL 0.04"
    )
    run.record(export={})
    assert parity(run).text == "nothing was compared"
