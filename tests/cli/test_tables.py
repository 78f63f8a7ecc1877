"""Tables on the terminal."""

from __future__ import annotations

import pytest

from forge_cli.cli._output import COMPARISON_COLUMNS, Output, comparison_rows

FOUND = {
    "base": 0.107, "tuned": 0.168, "difference": 0.06, "low": -0.329, "high": 0.449, "n": 24,
    "clusters": 10, "verdict": "no difference shown",
}  # fmt: skip


@pytest.mark.parametrize("width", [80, 120])
def test_no_word_is_broken(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.console.width = width
    rows = comparison_rows({"raft:reworded+examples": {"quote_precision": FOUND}})
    output.table(COMPARISON_COLUMNS, rows, "Base against tuned")
    shown = capsys.readouterr().err
    assert all(len(line) <= width for line in shown.splitlines())
    words = [
        "raft:reworded+examples",
        "quote_precision",
        "0.107",
        "+0.060",
        "+0.449]",
        "difference",
    ]
    assert not [word for word in words if word not in shown.split()]
    assert ("no difference shown" in shown) == (width == 120)
