"""Answers decoded in a batch are those that each row gives alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from forge_cli.evaluate.answers import _share_prefix, decode
from forge_cli.models.backend import mx, nn
from forge_cli.models.load import Loaded
from tiny_train import random_model

LIMIT = 24
SLIDING = {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 24}
MODELS = {
    "llama": ("llama", {}),
    "llama, sliding window": ("llama", SLIDING),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
}


def loaded(model: nn.Module, ends: set[int]) -> Loaded:
    tokenizer: Any = SimpleNamespace(eos_token_ids=ends)
    return Loaded("random", Path(), model, tokenizer, {})


def greedy(model: nn.Module, prompt: list[int]) -> list[int]:
    """The definition: the whole sequence through the model for each token, no cache."""
    ids = list(prompt)
    for _ in range(LIMIT):
        ids.append(int(mx.argmax(model(mx.array([ids]))[0, -1]).item()))
    return ids[len(prompt) :]


def until(tokens: list[int], ends: set[int]) -> list[int]:
    return tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))]


def groups(rng: np.random.Generator) -> list[list[list[int]]]:
    """Prompts of two contexts: shared prefixes of 70 and 9 tokens, and one prompt alone."""

    def draw(count: int) -> list[int]:
        return [int(x) for x in rng.integers(0, 300, count)]

    long, short = draw(70), draw(9)
    return [
        [[*long, n, *draw(size)] for n, size in enumerate((1, 17, 6))],
        [[*short, n, *draw(size)] for n, size in enumerate((30, 2))],
        [draw(41)],
    ]


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_answers_as_each_row_alone(name: str) -> None:
    family, changes = MODELS[name]
    model = random_model(family, num_hidden_layers=2, **changes)
    prompts = groups(np.random.default_rng(3))
    alone = [greedy(model, prompt) for group in prompts for prompt in group]
    # Tokens that some rows meet early, some late, and some never: rows leave one by one.
    ends = {alone[0][2], alone[3][9]}
    wanted = [until(tokens, ends) for tokens in alone]
    assert len({len(tokens) for tokens in wanted}) >= 3, "the rows must end at different steps"

    side = loaded(model, ends)
    branches: list[list[int]] = []
    caches: list[list[Any]] = []
    for group in prompts:
        rest, filled = _share_prefix(side, group)
        branches, caches = branches + rest, caches + filled
    assert decode(side, branches, caches, LIMIT) == wanted
    assert decode(side, branches, caches, 1) == [tokens[:1] for tokens in wanted], "used twice"
