"""Preferences: the loss by its formula, the reference taken once, training that follows them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forge_cli import train
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import Silent
from forge_cli.core.jsonl import write_records
from forge_cli.core.records import Message, Origin, Preference
from forge_cli.models.adapters import load_arrays, load_tuned
from forge_cli.models.backend import mx, nn
from forge_cli.models.load import load_dense
from forge_cli.train import dpo
from forge_cli.train.dpo import log_probabilities, make_pairs, pair_loss, split_pairs
from tiny_train import examples, save_model

SETTINGS: dict[str, Any] = {
    "loss": "dpo", "rank": 4, "steps": 10, "learning_rate": 5e-3, "valid_every": 5, "layers": 0,
    "targets": ("q_proj", "v_proj", "down_proj"), "valid_share": 0.3,
}  # fmt: skip


def preferences(files: int = 4) -> list[Preference]:
    return [
        Preference(
            messages=[Message(role="user", content=f"What is value {number} of file {file}?")],
            chosen=f"It is {number * (file + 2)}.",
            rejected=f"Nobody knows what {number} is.",
            origin=Origin(kind="value", chunk=f"c{file}", path=f"f{file}.py"),
        )
        for file in range(files)
        for number in range(3)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("model")))


def answer_log_probability(model: nn.Module, ids: list[int], start: int) -> float:
    logits = np.array(model(mx.array([ids[:-1]]))[0].astype(mx.float32), np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return float(sum(logs[at - 1, ids[at]] for at in range(start, len(ids))))


def test_the_loss_is_that_of_the_paper(model: str) -> None:
    from forge_cli.models.chat import tokenise

    loaded = load_dense(model)
    pair = preferences()[4]
    group = make_pairs([pair], loaded.tokenizer, max_tokens=500)[0]
    start = log_probabilities(loaded.model, group)
    known = []
    for answer in (pair.chosen, pair.rejected):
        row = tokenise(
            loaded.tokenizer, [*pair.messages, Message(role="assistant", content=answer)]
        )
        known.append(answer_log_probability(loaded.model, row.ids, row.start))
    assert np.allclose(np.array(start), known, rtol=1e-5)
    reference = mx.array([known[0] - 1.5, known[1] + 0.75])
    loss, count = pair_loss(loaded.model, dpo.Pair(group, reference), beta=0.4)
    assert count == 1
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-0.4 * (1.5 + 0.75))), rel=1e-4)
    even, _ = pair_loss(loaded.model, dpo.Pair(group, start), beta=0.4)
    assert float(even) == pytest.approx(math.log(2), rel=1e-5)


@pytest.mark.parametrize("init", ["pissa", "lora"])
def test_training_comes_to_prefer_what_was_chosen(tmp_path: Path, model: str, init: str) -> None:
    result = train.run(preferences(), out=tmp_path, model=model, init=init, **SETTINGS)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    valid = [row["valid_loss"] for row in rows if "valid_loss" in row]
    assert valid[0] == pytest.approx(math.log(2), rel=1e-4), "at first nothing is preferred"
    assert result.best_valid_loss < 0.6
    tuned = load_tuned(result.adapters)
    _, held = split_pairs(preferences(), 0.3, 0)
    groups = make_pairs(held, tuned.tokenizer, max_tokens=500)
    base = load_dense(model)
    gained = [
        np.array(log_probabilities(tuned.model, g)) - np.array(log_probabilities(base.model, g))
        for g in groups
    ]
    assert all(chosen > rejected for chosen, rejected in gained)


class Watch(Silent):
    """A reporter that remembers what was worked at."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def task(self, name: str, total: float | None = None) -> Any:
        self.names.append(name)
        return super().task(name, total)


class Interrupt(train.Callback):
    """Ctrl-C after a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, run: Any, step: Any) -> None:
        if step.step == self.at:
            raise KeyboardInterrupt


def test_resumed_is_as_uninterrupted_and_the_reference_is_taken_once(
    tmp_path: Path, model: str
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train.run(preferences(), out=whole, model=model, **SETTINGS)
    first, second = Watch(), Watch()
    settings = {**SETTINGS, "out": cut, "model": model}
    with pytest.raises(KeyboardInterrupt):
        train.run(preferences(), **settings, callbacks=[Interrupt(7)], reporter=first)
    train.run(preferences(), **settings, reporter=second)
    assert first.names.count("reference") == 2, "of training and validation pairs"
    assert "reference" not in second.names and "training" in second.names
    one, two = (load_arrays(out / "adapters" / "adapters.safetensors") for out in (whole, cut))
    assert all(mx.array_equal(one[name], two[name]) for name in one)


def test_pairs_are_split_by_file_or_as_they_say() -> None:
    pairs = preferences(10)
    one, two = split_pairs(pairs, 0.3, 0)
    files = [{p.origin.path for p in part} for part in (one, two)]
    assert not files[0] & files[1] and len(files[1]) == 3
    assert split_pairs(pairs, 0.3, 0) == (one, two) != split_pairs(pairs, 0.3, 1)
    told = [
        p.model_copy(update={"split": "valid" if n < 2 else "test"}) for n, p in enumerate(pairs)
    ]
    with pytest.raises(ForgeError, match="0 training and 2 validation pairs"):
        split_pairs(told, 0.3, 0)
    with pytest.raises(ForgeError, match="1 file"):
        split_pairs(preferences(1), 0.3, 0)


def test_what_is_no_pair_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(UsageError, match="no preferences"):
        train.run(examples(), out=tmp_path, model=model, **SETTINGS)
    long = preferences()
    long[7] = long[7].model_copy(update={"chosen": "x" * 5000})
    with pytest.raises(ForgeError, match=r"pair \d+ \(f2.py\): \d+ tokens, more than 600"):
        train.run(long, out=tmp_path, model=model, **SETTINGS | {"max_tokens": 600})


def test_from_the_command_line(tmp_path: Path, model: str) -> None:
    write_records(preferences(), tmp_path / "pairs.jsonl")
    (tmp_path / "forge.yaml").write_text("valid_share: 0.3\n")

    def forge(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "forge_cli", "train", *words, "--loss", "dpo"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = forge("pairs.jsonl", "--model", model, "--steps", "1", "--rank", "2")
    assert done.returncode == 0, done.stderr
    assert "forge export" in done.stderr
    assert (tmp_path / ".forge/runs/pairs/data/preferences.jsonl").exists()
    refused = forge(str(tmp_path))
    assert refused.returncode == 2 and "--preferences" in refused.stderr
