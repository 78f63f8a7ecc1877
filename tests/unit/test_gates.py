"""Gates hold or say why not; suites are read from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_cli.core.errors import UsageError
from forge_cli.evaluate.gates import failing, read_gates
from forge_cli.evaluate.statistics.verdict import Outcome, Verdict, combine
from forge_cli.evaluate.suites import read_suite

METRICS = {
    "raft": {
        "answer_f1": {"base": 0.2, "tuned": 0.6, "difference": 0.4, "low": 0.3, "n": 40,
                      "verdict": "better"},
        "abstention": {"difference": -0.02, "low": -0.1, "verdict": "no difference shown"},
        "quote_correct": {"difference": 0.5, "detectable": None, "verdict": "not enough samples"},
    },
    "raft:closed_book": {"answer_f1": {"difference": -0.3, "verdict": "worse"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "why"),
    [
        ("raft.answer_f1.low > 0.25", ""),
        ("raft.answer_f1.low>0.3", "it is 0.3"),
        ("raft.answer_f1.low >= 0.3", ""),
        ("raft.answer_f1.n < 1e2", ""),
        ("raft:closed_book.answer_f1.difference > -0.1", "it is -0.3"),
        ("raft.answer_f1 is better", ""),
        ("raft.abstention is better", "it is no difference shown"),
        ("raft.abstention is not worse", ""),
        ("raft:closed_book.answer_f1 is not worse", "it is worse"),
        ("raft.quote_correct is not worse", "it is not enough samples"),
        ("raft.quote_correct is not enough samples", "it is not enough samples"),
        ("raft.quote_correct.detectable < 1", "not measured"),
        ("raft.chrf.low > 0", "not measured"),
        ("humaneval.pass is not worse", "not measured"),
        ("verdict is better", ""),
        ("verdict is not better", "it is better"),
    ],
)
def test_gates(gate: str, why: str) -> None:
    assert failing(read_gates([gate]), METRICS, "better") == ([f"{gate}: {why}"] if why else [])


def test_gates_come_from_files_too(tmp_path: Path) -> None:
    file = tmp_path / "gates.yaml"
    file.write_text("- raft.answer_f1.low > 0\n- verdict is better\n")
    assert read_gates([str(file), "raft.abstention is not worse"]) == [
        "raft.answer_f1.low > 0", "verdict is better", "raft.abstention is not worse",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("raft.answer_f1 > ", "cannot be read"),
        ("answer", "cannot be read"),
        ("missing.yaml", "No such file"),
    ],
)
def test_gates_that_cannot_be_read(given: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_gates([given])


def test_a_file_of_gates_is_a_list(tmp_path: Path) -> None:
    for text, says in [("a: 1\n", "not a list"), ("- 1\n", "not a list"), ("- [\n", "not a file")]:
        file = tmp_path / "g.yaml"
        file.write_text(text)
        with pytest.raises(UsageError, match=says):
            read_gates([str(file)])


def test_suites(tmp_path: Path) -> None:
    own = read_suite("raft")
    assert own.against == "base+examples" and "given.answer_f1" in own.rules.wins
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nagainst: base\nrules: {wins: [closed_book.answer_f1]}\n")
    assert read_suite(str(file)).side == "tuned"
    for text, says in [
        ("name: x\n", "rules: Field required"),
        ("name: x\nrules: {wins: []}\n", "rules: .*nothing to decide"),
        ("name: x\nrules: {wins: [a]}\nextra: 1\n", "extra"),
        ("a: [\n", "mine.yaml:2: not YAML"),
    ]:
        file.write_text(text)
        with pytest.raises(UsageError, match=says):
            read_suite(str(file))
    with pytest.raises(UsageError, match="suite speed: not found") as error:
        read_suite("speed")
    assert "known: completion, humaneval, latency, raft, repo-tests, time" in error.value.hint


def test_one_verdict_over_suites() -> None:
    def said(*outcomes: Outcome) -> str:
        found = {str(n): Verdict(outcome=o, reasons=[o]) for n, o in enumerate(outcomes)}
        return combine(found).outcome

    assert said("better") == "better"
    assert said("better", "no difference shown") == "better"
    assert said("no difference shown", "better") == "no difference shown", "the first decides"
    assert said("better", "worse") == "broke something"
    assert said("no difference shown", "worse") == "worse"
    assert said("better", "broke something") == "broke something"
    named = combine({
        "raft": Verdict(outcome="better", reasons=["a"]),
        "code": Verdict(outcome="better", reasons=["b"]),
    })  # fmt: skip
    assert named.reasons == ["raft better: a", "code better: b"]
