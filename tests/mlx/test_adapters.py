"""Adapter folders: written whole, read back, refused when incomplete; checkpoints too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mlx.optimizers as optim
import numpy as np
import pytest

from forge_cli.core.errors import ForgeError
from forge_cli.models.adapters import (
    AdapterConfig,
    LoRALinear,
    adapter_arrays,
    get_module,
    load_tuned,
    residual_hash,
    save_adapters,
    set_module,
    target_modules,
)
from forge_cli.models.backend import mx, nn
from forge_cli.models.load import load_dense
from forge_cli.models.quantise import dense_weight, logical_shape, quantise_model, round_trip
from forge_cli.train import checkpoint
from forge_cli.train.initial import start_adapters
from forge_cli.train.step import Partial
from tiny_train import logits, random_model, save_model

IDS = list(range(4, 40))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """An adapter folder whose A and B differ from their start, and its logits."""
    root = tmp_path_factory.mktemp("saved")
    name = str(save_model(root / "model"))
    loaded = load_dense(name)
    config = AdapterConfig(name, "pissa", 4, 8.0, 4, 64, [])
    config, initial = start_adapters(
        loaded.model, config, targets=["q_proj", "up_proj"], layers=0, seed=0
    )
    for path in config.modules:
        get_module(loaded.model, path).A = get_module(loaded.model, path).A * 1.5
    save_adapters(root / "adapters", config, adapter_arrays(loaded.model), initial)
    return root / "adapters", logits(loaded.model, IDS)


def test_a_tuned_model_comes_back_exactly(saved: tuple[Path, np.ndarray]) -> None:
    folder, expected = saved
    assert np.array_equal(logits(load_tuned(folder).model, IDS), expected)


def test_merged_weights_are_the_tuned_function(saved: tuple[Path, np.ndarray]) -> None:
    folder, expected = saved
    model = load_tuned(folder).model
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            module.base.weight = module.merged()
            set_module(model, name, module.base)
    assert not adapter_arrays(model)
    merged = logits(model, IDS)
    assert np.abs(merged - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["config.json", "adapters.safetensors", "initial.safetensors"])
def test_a_broken_folder_is_named(
    tmp_path: Path, saved: tuple[Path, np.ndarray], name: str
) -> None:
    for file in saved[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    with pytest.raises(ForgeError, match="no usable adapters") as error:
        load_tuned(tmp_path)
    assert str(tmp_path) in error.value.message
    assert "train" in error.value.hint
    if name != "initial.safetensors":
        (tmp_path / name).unlink()
        with pytest.raises(ForgeError, match="no usable adapters"):
            load_tuned(tmp_path)


def test_another_residual_is_a_warning(tmp_path: Path, saved: tuple[Path, np.ndarray]) -> None:
    for file in saved[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["residual_sha256"] = "0" * 64
    (tmp_path / "config.json").write_text(json.dumps(config))
    warnings: list[str] = []

    class Listen:
        warn = staticmethod(warnings.append)
        note = staticmethod(lambda _: None)

    load_tuned(tmp_path, reporter=Listen())  # type: ignore[arg-type]
    assert "the residual differs" in warnings[0]


def test_the_residual_hash_sees_every_byte() -> None:
    model = random_model("llama")
    config = AdapterConfig("tiny", "lora", 2, 2.0, 16, 64, [])
    start_adapters(model, config, targets=["q_proj"], layers=0, seed=0)
    before = residual_hash(model)
    assert residual_hash(model) == before
    layer = get_module(model, "model.layers.1.self_attn.q_proj")
    layer.A = layer.A + 1
    assert residual_hash(model) == before, "A and B are not in it"
    layer.base.weight[3, 5] = layer.base.weight[3, 5] + 1e-3
    assert residual_hash(model) != before


def test_layers_are_chosen_from_the_end_in_order() -> None:
    model = random_model("llama")
    assert target_modules(model, ["up_proj", "q_proj"], 2) == [
        "model.layers.1.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.2.mlp.up_proj",
        "model.layers.2.self_attn.q_proj",
    ]
    assert len(target_modules(model, ["q_proj"], 0)) == 3
    assert len(target_modules(model, ["q_proj"], 99)) == 3


def test_the_cpus_quantised_weights_are_those_of_mlxs_layers() -> None:
    ours, theirs = random_model("llama"), random_model("llama")
    quantise_model(ours, bits=4, group_size=64)
    nn.quantize(theirs, group_size=64, bits=4)
    for path in ("model.embed_tokens", "lm_head", "model.layers.0.mlp.down_proj"):
        packed = get_module(theirs, path)
        assert mx.array_equal(dense_weight(get_module(ours, path)), dense_weight(packed))
        assert logical_shape(packed) == logical_shape(get_module(ours, path))
    W = mx.random.normal((8, 64), key=mx.random.key(0))
    error = [mx.abs(W - round_trip(W, bits=bits, group_size=32)).max().item() for bits in (4, 8)]
    assert error[1] < error[0] / 10


def test_a_checkpoint_keeps_every_bit(tmp_path: Path) -> None:
    model = random_model("llama")
    config = AdapterConfig("tiny", "pissa", 2, 2.0, 16, 64, [])
    start_adapters(model, config, targets=["q_proj"], layers=0, seed=0)
    optimiser = optim.AdamW(learning_rate=1e-3)
    loss = nn.value_and_grad(model, lambda m: m(mx.array([IDS])).square().mean())
    optimiser.update(model, loss(model)[1])
    progress = checkpoint.Progress(7, [(0, 1.5), (4, 0.1 + 0.2)], max_tokens=9, rows="abc")
    partial = Partial(2, 0.1 + 0.2, 7.0, 30, 7, 0.5, {"x.0": mx.ones((2, 3)) / 3})
    mx.random.seed(3)
    mx.random.normal((5,))
    given = checkpoint.State(adapter_arrays(model), optimiser.state, progress, partial)
    checkpoint.save(tmp_path / "c.safetensors", given)
    drawn = mx.random.normal((5,))
    back = checkpoint.load(tmp_path / "c.safetensors")
    back.restore_random()
    assert mx.array_equal(mx.random.normal((5,)), drawn)
    arrays, state, again = back.adapters, back.optimiser, back.progress
    assert again == progress and (again.best_loss, again.best_step) == (0.1 + 0.2, 4)
    assert again.validated == 4
    assert mx.array_equal(back.partial.gradients["x.0"], partial.gradients["x.0"])
    assert replace(back.partial, gradients={}) == replace(partial, gradients={})
    expected = adapter_arrays(model)
    assert set(arrays) == set(expected)
    assert all(mx.array_equal(arrays[name], expected[name]) for name in arrays)
    from mlx.utils import tree_flatten

    ours, theirs = dict(tree_flatten(state)), dict(tree_flatten(optimiser.state))
    assert set(ours) == set(theirs)
    assert all(mx.array_equal(ours[name], theirs[name]) for name in ours)
    assert [file.name for file in tmp_path.iterdir()] == ["c.safetensors"]
    start = checkpoint.Progress()
    checkpoint.save(tmp_path / "c.safetensors", checkpoint.State(expected, optimiser.state, start))
    back = checkpoint.load(tmp_path / "c.safetensors")
    assert back.progress.best_loss == float("inf") and back.partial.gradients == {}


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 64])
def test_a_broken_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "latest.safetensors"
    file.write_bytes(content)
    with pytest.raises(ForgeError, match=r"latest\.safetensors: not a usable checkpoint") as error:
        checkpoint.load(file)
    assert "--fresh" in error.value.hint


def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path) -> None:
    mx.save_safetensors(str(tmp_path / "x.safetensors"), {"a": mx.ones(3)})
    with pytest.raises(ForgeError, match="not a usable checkpoint"):
        checkpoint.load(tmp_path / "x.safetensors")
