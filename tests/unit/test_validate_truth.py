"""Validation: an answer that the code does not bear out is rejected, whatever it quotes."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_cli import mine, raft
from forge_cli.core.records import Example
from forge_cli.validate.truth import answer_is_true

SOURCE = '''
def load(path, mode="r", *, strict=False) -> dict[str, int]:
    """Read a table of counts from a file of lines."""
    if strict and mode != "r":
        raise ValueError(mode)
    return parse(path)


def parse(path):
    """Split every line of the file at its first colon."""
    pairs = [line.split(":") for line in open(path)]
    return {name: int(count) for name, count in pairs}


class Table:
    """Keeps the counts of a file by their names."""

    def first(self, n=1):
        return n

    def last(self):
        return 2
'''


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Example]:
    folder = tmp_path_factory.mktemp("repo")
    (folder / "table.py").write_text(SOURCE)
    chunks = list(mine.run(folder))
    found = {}
    for seed in range(12):
        for row in raft.run(chunks, oracle_p=1, questions=20, seed=seed):
            found[f"{row.origin.kind} {row.documents[0].symbol}"] = row
            assert answer_is_true(row) is None, row.question
    return {row.origin.kind: row for row in found.values()}


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("purpose", "Writes a table to a file."),
        ("find", "`other`, in `table.py`"),
        ("where", "other.py"),
        ("signature", "def load(path, mode='w')"),
        ("default", "'x'"),
        ("returns", "list[int]"),
        ("raises", "KeyError"),
        ("members", "last, first"),
        ("calls", "`dump`"),
        ("completion", "return 3"),
    ],
)
def test_a_wrong_answer_is_found(rows: dict[str, Example], kind: str, wrong: str) -> None:
    row = rows[kind]
    lie = row.model_copy(update={"answer": row.answer.model_copy(update={"final": wrong})})
    assert answer_is_true(lie) is not None


def test_a_parameter_that_is_there_cannot_be_refused(rows: dict[str, Example]) -> None:
    row = rows["absent"]
    about = next(d for d in row.documents if d.id == row.origin.chunk)
    inside = about.text.partition("(")[2].partition(",")[0].partition("=")[0].partition(")")[0]
    lie = row.model_copy(
        update={"question": f"What is the default of `{inside}` of `{about.symbol}`?"}
    )
    assert answer_is_true(lie) == "the parameter is there"
    hidden = [d for d in row.documents if d.id != row.origin.chunk]
    assert answer_is_true(row.model_copy(update={"documents": hidden})) is not None


def test_a_quote_without_the_call_proves_no_caller(rows: dict[str, Example]) -> None:
    row = rows["callers"]
    quote = row.answer.quotes[0].model_copy(update={"text": "return None"})
    lie = row.model_copy(update={"answer": row.answer.model_copy(update={"quotes": [quote]})})
    assert "is not called" in (answer_is_true(lie) or "")


def test_other_languages_are_checked_by_their_words(tmp_path: Path) -> None:
    (tmp_path / "a.rs").write_text(
        "/// Adds two numbers without overflow checks.\n"
        "pub fn add(a: i32, b: i32) -> i64 {\n    wide(a) + wide(b)\n}\n\n"
        "fn wide(a: i32) -> i64 {\n    a as i64\n}\n"
    )
    rows = list(raft.run(mine.run(tmp_path), oracle_p=1, questions=9))
    kinds = {row.origin.kind: row for row in rows}
    assert {"purpose", "signature", "returns", "calls"} <= set(kinds)
    assert all(answer_is_true(row) is None for row in rows)
    for kind, wrong in (
        ("signature", "fn add(a: u8)"),
        ("returns", "u8"),
        ("purpose", "Subtracts."),
    ):
        row = kinds[kind]
        lie = row.model_copy(update={"answer": row.answer.model_copy(update={"final": wrong})})
        assert answer_is_true(lie) is not None
