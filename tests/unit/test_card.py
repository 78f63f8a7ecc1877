"""The model card: the hub reads its head, a person the rest; it gives no path away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from forge_cli.evaluate.pairing import Pair
from forge_cli.evaluate.report.card import Card, write_card
from forge_cli.evaluate.statistics import compare
from forge_cli.evaluate.statistics.verdict import Outcome, Verdict

CARD = Card(
    "Qwen/Qwen3-0.6B", "Apache-2.0", "ledger", {"adapters": "pissa, rank 16", "steps": "40"},
    {"purpose": 30, "raises": 12},
)  # fmt: skip


def pair(reference: str, side: str = "tuned") -> Pair:
    files = [f"f{n}.py" for n in range(12)]
    found = compare(
        [0.1] * 12, [0.5 + n / 100 for n in range(12)], files, lower_is_better=False,
        resamples=1000, seed=0,
    )  # fmt: skip
    return Pair("reworded", "answer_f1", reference, side, found)


def written(folder: Path, card: Card, outcome: Outcome) -> str:
    pairs = [pair("base"), pair("base+examples"), pair("base", "base+examples")]
    verdict = Verdict(outcome=outcome, reasons=["given.answer_f1: 0.1 → 0.5"])
    return write_card(folder / "model-card.md", card, pairs, verdict).read_text()


def test_a_card(tmp_path: Path) -> None:
    text = written(tmp_path, CARD, "better")
    head = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])  # type: ignore[index]
    assert head["license"] == "apache-2.0" and head["base_model"] == "Qwen/Qwen3-0.6B"
    assert "# Qwen/Qwen3-0.6B, tuned on ledger" in text and "Better than its base" in text
    assert text.count("| a wording never trained on | answer f1 | 0.100 → 0.555 |") == 2
    assert "- 42 training rows: purpose 30, raises 12" in text and "- adapters: pissa" in text


@pytest.mark.parametrize("outcome", ["worse", "not enough samples", "broke something"])
def test_a_card_does_not_praise_what_is_not_better(tmp_path: Path, outcome: Outcome) -> None:
    text = written(tmp_path, CARD, outcome)
    assert "Better than its base" not in text


def test_a_base_that_is_no_name_of_the_hub_is_not_linked(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    text = written(tmp_path, Card(str(folder), "", "ledger", {}, {}), "better")
    assert "base_model" not in text and "license: other" in text
