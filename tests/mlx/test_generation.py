"""Answers decoded in a batch are those that each row gives alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_row_losses import mamba

from forge_cli.core.events import SILENT
from forge_cli.evaluate import generation
from forge_cli.evaluate.generation import Continuation, decode, generate, share_prefix
from forge_cli.models.backend import mx, nn
from forge_cli.models.load import Loaded
from forge_cli.models.prefixes import group_by_prefix, shared_length
from forge_cli.models.sampling import Draw
from forge_cli.models.shared_context import check_model
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


def drawn(model: nn.Module, prompt: list[int], draw: Draw) -> list[int]:
    """The definition of a draw, as `greedy` is of the likeliest."""
    ids = list(prompt)
    for step in range(LIMIT):
        ids.append(draw.pick(np.array(model(mx.array([ids]))[0, -1], np.float64), step))
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
        rest, filled = share_prefix(side, group)
        branches, caches = branches + rest, caches + filled
    assert [c.tokens for c in decode(side, branches, caches, LIMIT)] == wanted
    again = decode(side, branches, caches, 1)
    assert [c.tokens for c in again] == [tokens[:1] for tokens in wanted], "used twice"
    found: dict[int, Continuation] = {}
    flat = [prompt for group in prompts for prompt in group]
    generate(side, flat[::-1], LIMIT, found.__setitem__)
    assert [found[index].tokens for index in reversed(range(len(flat)))] == wanted


@pytest.mark.parametrize("name", [*MODELS, "mamba"])
def test_a_draw_is_the_same_alone_and_in_any_batch(name: str) -> None:
    if name == "mamba":
        model = mamba()
        check_model(model, "mamba", SILENT)
    else:
        family, changes = MODELS[name]
        model = random_model(family, num_hidden_layers=2, **changes)
    flat = [prompt for group in groups(np.random.default_rng(3)) for prompt in group]
    # Some prompts are answered many times, and all draws are mixed.
    rows = [(0, n) for n in range(19)] + [(3, n) for n in range(3)] + [(n, 0) for n in (1, 4, 5)]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    if name == "mamba":
        rows = rows[:6]  # each runs by itself
    draws = [Draw(0.8, 1, f"row {row}", sample) for row, sample in rows]
    alone = [drawn(model, flat[row], d) for (row, _), d in zip(rows, draws, strict=True)]
    assert len(set(map(tuple, alone))) == len(alone), "samples differ"
    ends = {alone[0][2], alone[1][9]}
    found: dict[int, Continuation] = {}
    prompts = [flat[row] for row, _ in rows]
    generate(loaded(model, ends), prompts, LIMIT, found.__setitem__, draws)
    assert [found[n].tokens for n in range(len(rows))] == [until(one, ends) for one in alone]
    generate(loaded(model, ends), prompts[:1], LIMIT, found.__setitem__, draws[:1])
    assert found[0].tokens == until(alone[0], ends)


def test_samples_of_a_prompt_share_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompt = random_model("llama", num_hidden_layers=2), list(range(50))
    shared: list[int] = []

    def share(side: Loaded, prompts: list[list[int]]) -> Any:
        rest, caches = share_prefix(side, prompts)
        assert [len(tokens) for tokens in rest] == [1] * len(prompts), "49 of 50 tokens"
        shared.append(len(prompts))
        return rest, caches

    monkeypatch.setattr(generation, "share_prefix", share)
    draws = [Draw(0.8, 0, "a", n) for n in range(20)]
    generate(loaded(model, set()), [prompt] * 20, 2, lambda *_: None, draws)
    assert shared == [16, 4]


def test_first_tokens_come_as_often_as_the_softmax_says() -> None:
    model = random_model("llama", num_hidden_layers=2)
    prompt = [int(x) for x in np.random.default_rng(1).integers(0, 300, 20)]
    draws = [Draw(0.8, 0, "a", n) for n in range(960)]
    found: dict[int, Continuation] = {}
    generate(loaded(model, set()), [prompt] * 960, 1, found.__setitem__, draws)
    logits = np.array(model(mx.array([prompt]))[0, -1], np.float64)
    raised = np.exp(logits / 0.8 - (logits / 0.8).max())
    # Tokens by their likelihood, in eight bins of about the same share.
    order = np.argsort(raised)
    parts = np.searchsorted(np.cumsum(raised[order]) / raised.sum(), np.arange(1, 8) / 8)
    bins = np.split(order, parts)
    expected = np.array([raised[part].sum() / raised.sum() * 960 for part in bins])
    first = [found[n].tokens[0] for n in range(960)]
    counts = np.array([np.isin(first, part).sum() for part in bins])
    assert expected.min() > 60 and len(set(first)) > 20
    # The 99.9 % quantile of χ² with 7 degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < 24.322
    chances = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
    told = [found[n].log_probabilities[0] for n in range(960)]
    np.testing.assert_allclose(told, logits[first] - chances, atol=1e-4)  # at temperature 1


def test_an_answer_knows_how_likely_its_tokens_were() -> None:
    model = random_model("llama", num_hidden_layers=2)
    prompt = [int(x) for x in np.random.default_rng(1).integers(0, 300, 20)]
    alone = greedy(model, prompt)
    found: dict[int, Continuation] = {}
    generate(loaded(model, {alone[3]}), [prompt], LIMIT, found.__setitem__)
    logits = np.array(model(mx.array([prompt + alone[:4]])), np.float64)[0]
    want = []
    for at, token in enumerate(alone[:4], len(prompt) - 1):
        want.append(logits[at, token] - np.log(np.exp(logits[at]).sum()))
    end = alone.index(alone[3])
    np.testing.assert_allclose(found[0].log_probabilities, want[: end + 1], atol=1e-4)
    assert found[0].confidence == pytest.approx(np.exp(np.mean(want[: end + 1])), rel=1e-4)


def test_sequences_that_begin_alike_are_put_together() -> None:
    a, b = [1] * 10, [2] * 10
    sequences = [[*a, 5], [*b, 7, 7], [*a, 6, 6], [*b, 8], [3], [*a, 5]]
    assert group_by_prefix(sequences) == [[0, 2, 5], [1, 3], [4]]
    assert shared_length([sequences[0], sequences[2]]) == 10
    assert shared_length([[4, 4, 4]]) == 2, "one token is left to run"
    assert shared_length([[1, 2], [1, 2, 3]]) == 1
    assert group_by_prefix([[*a, 1]] * 9, 16) == [list(range(9))]
    many = group_by_prefix([[*a, n] for n in range(20)])
    assert sorted(map(len, many)) == [4, 8, 8] and {i for group in many for i in group} == set(
        range(20)
    )
