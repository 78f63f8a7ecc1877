"""NEFTune is the noise of its paper; gradient checkpointing changes memory, not gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

from forge_cli.core.errors import UsageError
from forge_cli.models.adapters import adapter_arrays
from forge_cli.models.backend import mx, nn
from forge_cli.models.quantise import quantise_model
from forge_cli.models.shared_context import token_losses
from forge_cli.train.gradient_checkpointing import checkpoint_blocks
from forge_cli.train.loop import mean_loss
from forge_cli.train.micro_batches import Batch, group_loss
from forge_cli.train.neftune import Neftune
from tiny_loop import batch, same_arrays, train_tiny, tuned_model

PLAN = [[batch(2, context=2 * n), batch(2, context=2 * n + 1)] for n in range(4)]


def embedded(model: nn.Module, ids: mx.array) -> np.ndarray:
    return np.array(model.model.embed_tokens(ids))


def test_noise_is_uniform_in_alpha_over_root_of_length_times_width() -> None:
    model, given = tuned_model(), batch(3)
    ids = mx.arange(200)[None]
    plain = embedded(model, ids)
    noise = Neftune(model, alpha=5.0, seed=0)
    with noise(given, 3, 0):
        found = embedded(model, ids) - plain
        second = embedded(model, ids) - plain
    bound = 5.0 / np.sqrt(given.length * 128)
    assert np.abs(found).max() <= bound * 1.0001 and np.abs(found).max() > 0.99 * bound
    assert abs(found.mean()) < bound / 50
    assert found.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert np.abs(np.corrcoef(found.ravel(), second.ravel())[0, 1]) < 0.02, "prefix and branches"
    assert np.array_equal(embedded(model, ids), plain), "none outside the block"


def test_noise_depends_on_seed_step_and_batch_only() -> None:
    model, ids = tuned_model(), mx.arange(50)[None]

    def drawn(seed: int, step: int, number: int) -> np.ndarray:
        with Neftune(model, 5.0, seed)(PLAN[0][0], step, number):
            return embedded(model, ids)

    assert np.array_equal(drawn(1, 2, 3), drawn(1, 2, 3))
    others = [drawn(1, 2, 4), drawn(1, 3, 3), drawn(2, 2, 3), drawn(1, 3, 2)]
    assert not any(np.array_equal(drawn(1, 2, 3), other) for other in others)


@pytest.mark.parametrize("tied", [True, False])
def test_noise_is_on_the_input_alone(tied: bool) -> None:
    """A tied embedding is also the output layer, which must stay as it is."""
    model = tuned_model(tie_word_embeddings=tied)
    hidden = mx.random.normal((4, 128), key=mx.random.key(0))
    head = model.model.embed_tokens.as_linear if tied else model.lm_head
    want = np.array(head(hidden))
    plain = np.array(token_losses(model, PLAN[0][0].data))
    with Neftune(model, 5.0, 0)(PLAN[0][0], 0, 0):
        now = model.model.embed_tokens.as_linear if tied else model.lm_head
        assert np.array_equal(np.array(now(hidden)), want)
        noisy = np.array(token_losses(model, PLAN[0][0].data))
    assert 1e-4 < np.abs(noisy - plain).mean() < 1.0


def test_noise_reaches_quantised_embeddings() -> None:
    model = tuned_model()
    quantise_model(model, bits=4, group_size=64)
    nn.quantize(model, bits=4, group_size=64, class_predicate=lambda p, m: p.endswith("tokens"))
    assert isinstance(model.model.embed_tokens, nn.QuantizedEmbedding)
    plain = np.array(token_losses(model, PLAN[0][0].data))
    with Neftune(model, 5.0, 0)(PLAN[0][0], 0, 0):
        assert not np.array_equal(np.array(token_losses(model, PLAN[0][0].data)), plain)


def test_training_with_noise_validates_without_and_resumes_exactly(tmp_path: Path) -> None:
    def train(name: str, alpha: float) -> tuple[Any, dict[str, mx.array]]:
        model = tuned_model()
        noise = {"around": Neftune(model, alpha, 0)} if alpha else {}
        settings = {"model": model, "valid_every": 2, "keep_last": 9, **noise}
        return train_tiny(tmp_path / name, PLAN, **settings)

    quiet, plain = train("quiet", 0.0)
    whole, arrays = train("whole", 5.0)
    assert whole.history[0] == quiet.history[0] and not same_arrays(arrays, plain)
    train("cut", 5.0)
    (tmp_path / "cut/checkpoints/step-00000004.safetensors").unlink()
    again, resumed = train("cut", 5.0)
    assert again == whole and same_arrays(resumed, arrays)


def test_a_model_without_one_embedding_is_refused() -> None:
    with pytest.raises(UsageError, match="neftune: 0 embeddings in this model"):
        Neftune(nn.Sequential(nn.Linear(4, 4)), 5.0, 0)


# Gradient checkpointing.

FAMILIES = ["llama", "qwen2", "qwen3"]


def gradients(model: nn.Module, given: Batch) -> tuple[float, dict[str, np.ndarray], int]:
    """Loss, gradients by name, and the peak bytes of the pass."""
    model.train()
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    step = nn.value_and_grad(model, lambda m, group: group_loss(m, group)[0])
    loss, found = step(model, given.data)
    flat = tree_flatten(found)
    mx.eval(loss, [value for _, value in flat])
    peak = mx.get_peak_memory() - before
    return loss.item(), {name: np.array(value) for name, value in flat}, peak


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", [48, 8], ids=["shared", "not shared"])
def test_checkpointed_gradients_are_the_same(family: str, prefix: int) -> None:
    given = batch(3, prefix=prefix)
    loss, want, _ = gradients(tuned_model(family), given)
    model = tuned_model(family)
    names = [name for name, _ in model.named_modules()]
    checkpoint_blocks(model)
    assert [name for name, _ in model.named_modules()] == names
    same, got, _ = gradients(model, given)
    assert same == pytest.approx(loss, rel=1e-6) and set(got) == set(want)
    for name, value in want.items():
        assert np.abs(value).max() > 0, name
        np.testing.assert_allclose(got[name], value, atol=1e-5 * np.abs(value).max(), err_msg=name)


def test_checkpointing_needs_less_memory_in_a_deeper_model() -> None:
    given = batch(4, prefix=128, answer=60)
    deep = {"num_hidden_layers": 12}
    _, want, plain = gradients(tuned_model(**deep), given)
    model = tuned_model(**deep)
    checkpoint_blocks(model)
    _, got, small = gradients(model, given)
    assert small < 0.5 * plain, f"{small} of {plain} bytes"
    assert all(np.allclose(got[k], want[k], atol=1e-5 * np.abs(want[k]).max()) for k in want)


def test_checkpointed_training_is_training(tmp_path: Path) -> None:
    plan = [[batch(2, context=n)] for n in range(4)]
    _, arrays = train_tiny(tmp_path / "plain", plan)
    model = tuned_model()
    checkpoint_blocks(model)
    progress, found = train_tiny(tmp_path / "checkpointed", plan, model=model)
    assert all(mx.allclose(found[k], arrays[k], atol=1e-4).item() for k in arrays)
    assert set(adapter_arrays(model)) == set(arrays)
    # What it leaves behind is a model like any other.
    model.eval()
    assert mean_loss(model, [batch(2, context=9).data]) == progress.history[-1][1]
    checkpoint_blocks(model)
    assert type(model.layers[0]).__mro__[2] is nn.Module, "wrapped once, not twice"
