"""A real model, real chats, each type: the figures behind `parity.THRESHOLDS`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

from forge_cli.core import events, jsonl
from forge_cli.core.records import Message
from forge_cli.export.gguf import Weight, write_gguf
from forge_cli.export.parity import THRESHOLDS, compare
from forge_cli.models.backend import mx
from forge_cli.models.load import load_dense
from tiny_gguf import smollm2


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    smollm2()  # skips where the wheel is missing
    loaded = load_dense("smollm2-135m")
    chats = [
        [
            Message(role="user", content=f"What is this?\n\n{inspect.getsource(module)[:700]}"),
            Message(role="assistant", content="It reports what a stage does, 3.14 times."),
        ]
        for module in (events, jsonl)
    ]
    prompts = []
    for chat in chats:
        dumped = [message.model_dump() for message in chat]
        render = loaded.tokenizer.apply_chat_template
        prompts.append((render(dumped, tokenize=False), list(render(dumped, tokenize=True))))
    answers = {tuple(ids): np.array(loaded.model(mx.array([ids]))[0]) for _, ids in prompts}
    return {"loaded": loaded, "prompts": prompts, "logits": lambda ids: answers[tuple(ids)]}


@pytest.mark.parametrize("quant", ["f16", "q8_0", "q4_k_m"])
def test_smollm2_passes_in_every_type(tmp_path: Path, trained: dict[str, Any], quant: str) -> None:
    loaded = trained["loaded"]
    weights = {
        name: Weight(value.shape, lambda value=value: np.array(value))
        for name, value in tree_flatten(loaded.model.parameters())
    }
    out = write_gguf(
        tmp_path / "model.gguf", config=loaded.config, tokenizer_dir=loaded.path,
        weights=weights, quant=quant, name="SmolLM2",
    )  # fmt: skip
    result = compare(out, mlx_logits=trained["logits"], prompts=trained["prompts"], quant=quant)
    assert result.passed, result.failures
    assert result.tokens_equal
    assert result.positions > 300
    assert 0.9 < result.perplexity_ratio < THRESHOLDS[quant].perplexity
    # A file of this type does not pass for the next finer one.
    finer = {"q8_0": "f16", "q4_k_m": "q8_0"}.get(quant)
    assert finer is None or result.mean_kl > THRESHOLDS[finer].mean_kl
