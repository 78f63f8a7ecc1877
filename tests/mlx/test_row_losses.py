"""Models that cannot share a context: each row runs by itself, from the loss to the answer."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from mlx.utils import tree_flatten
from test_shared_context import rows

from forge_cli import train
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import Silent
from forge_cli.evaluate.generation import Continuation, generate
from forge_cli.models import shared_context
from forge_cli.models.adapters import load_tuned
from forge_cli.models.backend import mx, nn
from forge_cli.models.row_losses import runs_apart
from forge_cli.models.shared_context import check_model, group_rows, token_losses
from forge_cli.train.callbacks.metrics import read_rows
from tiny_train import examples, random_model, save_model

SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 300,
    "num_attention_heads": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
}  # fmt: skip
MAMBA = {
    "state_size": 8, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True,
    "time_step_rank": 4,
}  # fmt: skip


def mamba(vocabulary: int = 300) -> nn.Module:
    """Recurrent: no keys and values to share, no inner `model`."""
    module = importlib.import_module("mlx_lm.models.mamba")
    mx.random.seed(0)
    config = {"model_type": "mamba", **SMALL, **MAMBA, "vocab_size": vocabulary}
    return module.Model(module.ModelArgs.from_dict(config))  # type: ignore[no-any-return]


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_recurrent_model_takes_the_ordinary_path() -> None:
    model, said = mamba(), Notes()
    check_model(model, "mamba", said)
    assert runs_apart(model) and "each runs by itself" in said.notes[0]
    given = rows()
    losses = token_losses(model, group_rows(given))
    ends = np.cumsum([row.supervised for row in given])[:-1]
    for row, own in zip(given, np.split(np.array(losses), ends), strict=True):
        logits = model(mx.array([row.ids[:-1]]))[0]
        want = nn.losses.cross_entropy(logits, mx.array(row.ids[1:]))[row.start - 1 :]
        assert np.allclose(own, np.array(want), atol=1e-5)


def test_a_recurrent_model_is_trained_and_answers(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    model = mamba(config["vocab_size"])
    (folder / "config.json").write_text(json.dumps({
        "model_type": "mamba", **SMALL, **MAMBA, "vocab_size": config["vocab_size"],
    }))  # fmt: skip
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    said = Notes()
    train.run(
        examples(), out=tmp_path / "run", model=str(folder), init="lora", bits=16, rank=4,
        targets=["in_proj", "out_proj"], layers=0, steps=6, learning_rate=2e-2, valid_every=6,
        max_tokens=8192, reporter=said,
    )  # fmt: skip
    assert any("each runs by itself" in note for note in said.notes)
    found = [row["valid_loss"] for row in read_rows(tmp_path / "run") if "valid_loss" in row]
    assert found[-1] < found[0] - 0.1
    answers: list[Continuation] = []
    tuned = load_tuned(tmp_path / "run" / "adapters")
    generate(tuned, [[5, 6, 7], [5, 6, 8, 9]], 4, lambda _, answer: answers.append(answer))
    logits = tuned.model(mx.array([[5, 6, 7]]))[0, -1]
    assert answers[0].tokens[0] == int(mx.argmax(logits)) and len(answers) == 2
    with pytest.raises(UsageError, match="gradient_checkpointing"):
        train.run(
            examples(), out=tmp_path / "other", model=str(folder), init="lora", bits=16, rank=4,
            targets=["in_proj"], layers=0, steps=1, max_tokens=8192, gradient_checkpointing=True,
        )  # fmt: skip


def test_a_model_that_attends_otherwise_takes_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = shared_context._mask

    def later(length: int, offset: int, as_array: bool, window: int | None) -> mx.array | str:
        # Branches that see the whole prefix but for its last token.
        found = kept(length, offset, True, window)
        assert isinstance(found, mx.array)
        return found & (mx.arange(offset + length) != offset - 1) if offset else found

    monkeypatch.setattr(shared_context, "_mask", later)
    model, said = random_model("llama"), Notes()
    check_model(model, "llama", said)
    assert runs_apart(model) and "its losses would come out as" in said.notes[0]


def test_a_model_without_logits_is_refused() -> None:
    with pytest.raises(ForgeError, match="cannot train this architecture"):
        check_model(nn.Linear(4, 4), "linear")
