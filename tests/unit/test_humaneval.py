"""HumanEval: solutions pass, wrong and hostile answers do not; nothing runs unasked."""

from __future__ import annotations

import pytest
from test_completion import row

from forge_cli.core.errors import UsageError
from forge_cli.core.humaneval import problems
from forge_cli.evaluate.asked import choose
from forge_cli.evaluate.humaneval import TEMPERATURE, check_ready, draws, estimate, make_rows
from forge_cli.evaluate.metrics import score
from forge_cli.evaluate.sandbox import why_not
from forge_cli.evaluate.statistics import compare
from forge_cli.evaluate.statistics.verdict import decide
from forge_cli.evaluate.suites import read_suite

contained = pytest.mark.skipif(bool(why_not()), reason=f"cannot contain code: {why_not()}")
FIRST = problems()["HumanEval/0"]
ROW = next(one for one in make_rows(164, 0) if one.id == "HumanEval/0")


def test_all_problems_are_read_and_drawn_by_seed() -> None:
    assert len(problems()) == 164
    assert {one.id for one in make_rows(164, 0)} == set(problems())
    assert [one.id for one in make_rows(5, 1)] == [one.id for one in make_rows(9, 1)][:5]
    assert FIRST.solution not in ROW.messages[1].content
    asked = choose(
        [row("a.py")], [], ["humaneval"], rows=3, answer_rows=4, condition_rows=3, seed=0
    )
    assert len(asked.questions) == 3 and not asked.rows


def test_one_answer_is_greedy_and_many_are_drawn() -> None:
    given = {"rows": 3, "answer_rows": 2, "condition_rows": 2, "seed": 5}
    once = choose([row("a.py")], [], ["humaneval"], **given)
    many = choose([row("a.py")], [], ["humaneval"], **given, samples=3)
    assert [q.draws for q in once.questions] == [(), ()]
    assert [q.example for q in many.questions] == [q.example for q in once.questions]
    for question in many.questions:
        assert question.draws == draws(question.example, 3, 5)
        assert [draw.sample for draw in question.draws] == [0, 1, 2]
        told = {(draw.row, draw.seed, draw.temperature) for draw in question.draws}
        assert told == {(question.example.id, 5, TEMPERATURE)}


@pytest.mark.parametrize(
    ("correct", "n", "values"),
    # 1 − C(n − c, k)/C(n, k)
    [
        (1, 2, [1 / 2]),
        (3, 9, [3 / 9]),
        (0, 10, [0, 0]),
        (3, 10, [0.3, 1]),
        (1, 12, [1 / 12, 1 - 11 / 66]),
        (2, 100, [0.02, 1 - 90 * 89 / (100 * 99), 1]),
        (1, 200, [1 / 200, 10 / 200, 100 / 200]),
    ],
)
def test_samples_give_each_k_that_they_allow(correct: int, n: int, values: list[float]) -> None:
    found = estimate([True] * correct + [False] * (n - correct))
    assert (found.pop("correct"), found.pop("samples")) == (correct, n)
    assert list(found) == ["pass@1", "pass@10", "pass@100"][: len(values)]
    assert list(found.values()) == pytest.approx(values, abs=1e-12)


def test_a_rule_on_what_was_not_measured_is_harmless() -> None:
    rules = read_suite("humaneval").rules
    files = [f"f{n}" for n in range(20)]
    gain = compare(
        [0.0] * 20, [1.0, 0.8] * 10, files, lower_is_better=False, resamples=1000, seed=0
    )
    loss = compare(
        [1.0, 0.8] * 10, [0.0] * 20, files, lower_is_better=False, resamples=1000, seed=0
    )
    assert decide({"humaneval.pass@1": gain}, rules).outcome == "better"
    both = {"humaneval.pass@1": gain, "humaneval.pass@10": gain}
    assert decide(both, rules).outcome == "better"
    assert decide(both | {"humaneval.pass@10": loss}, rules).outcome == "broke something"


@contained
@pytest.mark.parametrize(
    ("text", "passed"),
    [
        (ROW.messages[-1].content, 1),
        (f"```python\n{FIRST.solution}```", 1),
        (FIRST.solution, 1),
        (f"Here it is:\n```python\n{FIRST.prompt}{FIRST.solution}\n```\nDone.", 1),
        (f"{FIRST.solution}\ndef more():\n    return (", 1),
        ("    return True\n", 0),
        ("    return (\n", 0),
        ("", 0),
        ("    import os\n    os._exit(0)\n", 0),
        ("    import socket\n    socket.create_connection(('127.0.0.1', 9))\n", 0),
    ],
)
def test_an_answer_passes_by_the_problems_tests(text: str, passed: int) -> None:
    assert score(ROW, text) == {"pass@1": passed}


def test_nothing_is_run_unless_it_is_asked_for() -> None:
    with pytest.raises(UsageError, match="humaneval runs what the models write"):
        check_ready(execute=False)
