"""A reader who has never seen Forge is told what each name in a report means."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from forge_cli.core.config import Condition
from forge_cli.evaluate.metrics import LOSSES, METRICS, TIMES
from forge_cli.evaluate.report import names
from forge_cli.evaluate.statistics.verdict import Outcome


def test_every_name_has_words() -> None:
    measured = {metric for own in METRICS.values() for metric in own}
    assert set(names.METRICS) == measured | set(LOSSES.values()) | set(TIMES) | {"judged"}
    assert set(names.CONDITION_NAMES) == set(get_args(Condition))
    assert set(names.OUTCOMES) == set(get_args(Outcome))


@pytest.mark.parametrize(
    ("side", "words"),
    [
        ("base", "before training"),
        ("base+examples", "before training, .* shown two worked answers"),
        ("tuned", "with the trained adapters$"),
        ("checkpoint:12", "at step 12"),
        ("out/model.gguf", "answered by llama.cpp"),
        ("openai:m+examples", "the model m behind a server, shown two"),
        (".forge/runs/other", "another run"),
    ],
)
def test_sides(side: str, words: str) -> None:
    assert re.search(words, names.side_in_words(side))


def test_a_path_is_called_by_its_last_part_where_that_tells_it_from_others() -> None:
    found = names.short_names(["base", "out/m.gguf", "a/run", "b/run", "openai:org/m"])
    assert found == {
        "base": "base", "out/m.gguf": "m.gguf", "a/run": "a/run", "b/run": "b/run",
        "openai:org/m": "openai:org/m",
    }  # fmt: skip


def test_reasons() -> None:
    said = names.reason_in_words("raft better: given.answer_f1: 0.1 → 0.5 (a.py: 3 rows)")
    assert said == "raft better: answer f1, documents as given: 0.1 → 0.5 (a.py: 3 rows)"
    assert names.reason_in_words("nothing that counts was measured").startswith("nothing")
