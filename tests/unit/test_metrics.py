"""Every metric, worked out by hand."""

from __future__ import annotations

import pytest

from forge_cli.core.records import Document
from forge_cli.evaluate.metrics.exact import exact_match, names_of
from forge_cli.evaluate.metrics.quotes import count_quotes
from forge_cli.evaluate.metrics.text import chrf, edit_similarity, set_f1


@pytest.mark.parametrize(
    ("kind", "answer", "reference", "same"),
    [
        ("default", "`1000.0`", "1e3", True),
        ("default", '"a"', "'a'", True),
        ("default", "(1,2)", "(1, 2)", True),
        ("default", "1", "10", False),
        ("default", "os.sep", "os . sep", True),
        ("default", "True", "1", True),  # Python's own equality
        ("signature", "def f(a, b = 3):", "def f(a,b=3)", True),
        ("signature", "`async def f(a: int) -> str: ...`", "async def f(a:int)->str", True),
        ("signature", "def f(a, b=4)", "def f(a, b=3)", False),
        ("signature", "def f(b, a)", "def f(a, b)", False),
        ("signature", "func (s *S) F(a int) error {", "func (s *S) F( a int ) error", True),
        ("calls", "`b`, `a`", "`a`, `b`", True),
        ("calls", "a and b", "`a`, `b`", True),
        ("calls", "`a`", "`a`, `b`", False),
        ("raises", "ValueError.", "ValueError", True),
        ("find", "`f`, in `a/b.py`", "`f`, in a/b.py", True),
        ("where", "`./src/a.py`.", "src/a.py", True),
        ("where", "src/b.py", "src/a.py", False),
        ("completion", "```python\n    x = 1\n    return x\n```", "x = 1\n\nreturn x", True),
        ("completion", "if a:\nb()", "if a:\n    b()", False),
        ("purpose", "Returns the  Sum.", "returns the sum", True),
        ("unheard of", "a", "b", False),
    ],
)
def test_exact_match(kind: str, answer: str, reference: str, same: bool) -> None:
    assert exact_match(kind, answer, reference) == same


def test_hostile_values_are_no_crash() -> None:
    assert not exact_match("default", "(" * 5000, "1")
    assert not exact_match("signature", "def f(" + "(" * 5000, "def f()")
    assert exact_match("default", "float('nan')", "float( 'nan' )")


def test_names() -> None:
    assert names_of("`a.b`, `c` and d()") == {"a.b", "c", "d"}
    assert set_f1({"a", "b"}, {"b", "c", "d"}) == pytest.approx(0.4)  # 2·1/(2 + 3)
    assert set_f1(set(), set()) == 1 and set_f1(set(), {"a"}) == 0


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("same text", "same text", 1.0),
        ("abc", "xyz", 0.0),
        ("", "", 1.0),
        ("", "a", 0.0),
        # n = 1: 2 shared of 2 and of 3; n = 2: 1 of 1 and of 2; n = 3: the answer has none.
        # P = 1, R = (2/3 + 1/2)/2 = 7/12: 5·P·R/(4·P + R).
        ("ab", "abc", 5 * (7 / 12) / (4 + 7 / 12)),
    ],
)
def test_chrf(answer: str, reference: str, value: float) -> None:
    assert chrf(answer, reference) == pytest.approx(value)


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [("kitten", "sitting", 1 - 3 / 7), ("", "", 1.0), ("a", "", 0.0), ("abc", "abc", 1.0)],
)
def test_edit_similarity(answer: str, reference: str, value: float) -> None:
    assert edit_similarity(answer, reference) == pytest.approx(value)


ORACLE = Document(id="o", path="a.py", text="x = 1\ny = 2\nz = 3", oracle=True)
OTHER = Document(id="d", path="b.py", text="x = 9\nw = 0", oracle=False)


@pytest.mark.parametrize(
    ("given", "counts", "precision", "recall"),
    [
        (["x = 1", "y = 2"], (2, 0, 0), 1.0, 1.0),
        (["x = 1"], (1, 0, 0), 1.0, 0.5),
        (["x = 1\ny = 2"], (1, 0, 0), 1.0, 1.0),  # one quote covers both
        (["x = 1", "w = 0", "q = 5", "z = 3"], (2, 1, 1), 0.5, 0.5),
        (["x = 9"], (0, 1, 0), 0.0, 0.0),
        ([], (0, 0, 0), 0.0, 0.0),
    ],
)
def test_quotes(
    given: list[str], counts: tuple[int, int, int], precision: float, recall: float
) -> None:
    found = count_quotes(given, ["x = 1", "y = 2"], [ORACLE, OTHER])
    assert (found.right, found.wrong, found.made_up) == counts
    assert (found.precision, found.recall) == (precision, recall)


def test_a_retrieved_document_may_hold_the_answer_too() -> None:
    twin = ORACLE.model_copy(update={"id": "t", "oracle": False})
    assert count_quotes(["x = 1"], ["x = 1"], [OTHER, twin]).right == 1
    nothing = count_quotes([], [], [OTHER])
    assert (nothing.precision, nothing.recall) == (1.0, 1.0)
