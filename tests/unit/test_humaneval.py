"""HumanEval: solutions pass, wrong and hostile answers do not; nothing runs unasked."""

from __future__ import annotations

import pytest
from test_completion import row

from forge_cli.core.errors import UsageError
from forge_cli.core.humaneval import problems
from forge_cli.evaluate.asked import choose
from forge_cli.evaluate.humaneval import check_ready, make_rows
from forge_cli.evaluate.metrics import score
from forge_cli.evaluate.sandbox import why_not

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
