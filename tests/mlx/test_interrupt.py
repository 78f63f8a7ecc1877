"""Ctrl-C before any line of the training code: the run goes on to the same adapters."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from forge_cli import train as stage
from forge_cli.models.backend import mx
from forge_cli.train.callbacks import Metrics, Report
from tiny_loop import batch, same_arrays, train_tiny

PLAN = [[batch(2, context=2 * n), batch(1, context=2 * n + 1)] for n in range(5)]
OURS = str(Path(stage.__file__).parent)


@contextmanager
def interrupted_at(line: int) -> Iterator[list[int]]:
    """Raise what Ctrl-C raises before the `line`-th line that runs in the training code."""
    seen = [0]

    def at_line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            seen[0] += 1
            if seen[0] == line:
                sys.settrace(None)
                raise KeyboardInterrupt
        return at_line

    before = sys.gettrace()
    sys.settrace(lambda frame, *_: at_line if frame.f_code.co_filename.startswith(OURS) else None)
    try:
        yield seen
    finally:
        sys.settrace(before)


def train(out: Path) -> tuple[Any, dict[str, mx.array]]:
    settings = {"valid_every": 2, "save_every": 3}
    return train_tiny(out, PLAN, Metrics(), Report("tiny"), **settings)


def losses(out: Path) -> list[tuple[Any, ...]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row.get("loss"), row.get("valid_loss")) for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, dict[str, mx.array], int]:
    out = tmp_path_factory.mktemp("whole")
    with interrupted_at(-1) as seen:
        progress, arrays = train(out)
    assert seen[0] > 1000
    return out, progress, arrays, seen[0]


@pytest.mark.parametrize("part", range(4))
def test_interrupted_anywhere_it_goes_on_to_the_same(
    tmp_path: Path, whole: tuple[Path, Any, dict[str, mx.array], int], part: int
) -> None:
    undisturbed, progress, arrays, lines = whole
    moments = random.Random(part)
    for number in range(6):
        out = tmp_path / str(number)
        # Twice: once on the way, once more in what comes after it.
        for span in (lines, lines // 2):
            with pytest.raises(KeyboardInterrupt), interrupted_at(moments.randrange(50, span)):
                train(out)
                raise KeyboardInterrupt  # it came to its end before that line
        again, resumed = train(out)
        assert again == progress and same_arrays(resumed, arrays)
        assert losses(out) == losses(undisturbed)
