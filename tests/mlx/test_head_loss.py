"""Losses without stored logits: the same values and gradients, in less memory."""

from __future__ import annotations

import numpy as np
import pytest
from test_shared_context import rows

from forge_cli.models import head_loss
from forge_cli.models.backend import mx, nn
from forge_cli.models.head_loss import Penalties, head_losses, plain_losses
from forge_cli.models.shared_context import group_rows, token_losses
from tiny_train import random_model

ROWS, WIDTH, VOCABULARY = 23, 64, 300
KINDS = {
    "plain": Penalties(),
    "smoothed": Penalties(smoothing=0.1),
    "z": Penalties(z=1e-2),
    "both": Penalties(0.2, 1e-3),
}


def arrays() -> tuple[mx.array, mx.array, mx.array]:
    rng = np.random.default_rng(1)
    hidden = mx.array(rng.standard_normal((ROWS, WIDTH)), mx.float32)
    return hidden, mx.array(rng.integers(0, VOCABULARY, ROWS)), mx.array(rng.random(ROWS))


def exact(logits: np.ndarray, targets: np.ndarray, penalties: Penalties) -> np.ndarray:
    """By definition, in double precision."""
    total = np.log(np.exp(logits).sum(-1))
    wanted = np.full(logits.shape, penalties.smoothing / logits.shape[-1])
    wanted[np.arange(len(targets)), targets] += 1 - penalties.smoothing
    return (wanted * (total[:, None] - logits)).sum(-1) + penalties.z * total**2


@pytest.fixture(params=["one chunk", "chunks of 5 rows"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "one chunk":
        monkeypatch.setattr(head_loss, "_CHUNK_BYTES", 5 * 4 * VOCABULARY)
        monkeypatch.setattr(head_loss, "_SLICE_BYTES", 2 * 4 * VOCABULARY)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("penalties", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("bits", [16, 4], ids=["dense", "4 bits"])
def test_values_and_gradients(penalties: Penalties, bits: int) -> None:
    mx.random.seed(0)
    head: nn.Module = nn.Linear(WIDTH, VOCABULARY)
    if bits == 4:
        head = nn.QuantizedLinear.from_linear(head, 64, 4)
    hidden, targets, toward = arrays()

    def ours(h: mx.array) -> mx.array:
        return head_losses(head, h, targets, VOCABULARY, penalties)

    def theirs(h: mx.array) -> mx.array:
        return plain_losses(head(h), targets, penalties)

    want = exact(np.array(head(hidden), np.float64), np.array(targets), penalties)
    for losses in (ours(hidden), theirs(hidden)):
        assert np.allclose(np.array(losses), want, rtol=1e-5)
    got = mx.grad(lambda h: (ours(h) * toward).sum())(hidden)
    expected = mx.grad(lambda h: (theirs(h) * toward).sum())(hidden)
    assert np.allclose(np.array(got), np.array(expected), atol=1e-6)


def test_a_model_with_a_frozen_head_learns_the_same() -> None:
    model = random_model("llama", tie_word_embeddings=True)
    group = group_rows(rows())

    def gradients() -> dict[str, np.ndarray]:
        from mlx.utils import tree_flatten

        work = nn.value_and_grad(model, lambda m: token_losses(m, group).mean())
        return {name: np.array(value) for name, value in tree_flatten(work(model)[1])}

    whole = gradients()
    model.model.embed_tokens.freeze()
    frozen = gradients()
    assert set(whole) - set(frozen) == {"model.embed_tokens.weight"}
    for name, value in frozen.items():
        assert np.allclose(value, whole[name], atol=1e-5 * np.abs(whole[name]).max()), name


def test_the_logits_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    count, vocabulary = 256, 20_000
    logits_bytes = 4 * count * vocabulary
    monkeypatch.setattr(head_loss, "_CHUNK_BYTES", logits_bytes // 64)
    weight = mx.random.normal((vocabulary, WIDTH))
    hidden = mx.random.normal((count, WIDTH))
    targets = mx.arange(count)
    mx.eval(weight, hidden, targets)

    def peak(work: object) -> int:
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(mx.grad(work)(hidden))  # type: ignore[arg-type]
        return mx.get_peak_memory() - before

    ours = peak(lambda h: head_losses(lambda x: x @ weight.T, h, targets, vocabulary).sum())
    theirs = peak(lambda h: plain_losses(h @ weight.T, targets).sum())
    assert theirs > 1.5 * logits_bytes
    assert ours < 0.5 * logits_bytes
