"""Models on disk into memory: with the right rope, or with one clear line of refusal."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

from forge_cli.core.errors import ForgeError
from forge_cli.models import load
from forge_cli.models.adapters import AdapterConfig
from forge_cli.models.backend import compute_dtype, mx, nn
from forge_cli.models.load import fingerprint, flat_rope, load_base, load_dense
from forge_cli.train.initial import start_adapters
from tiny_train import logits, save_model

IDS = list(range(3, 60))
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "factor": 4.0}


def edit(folder: Path, *drop: str, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in config.items() if k not in drop} | changes
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("scaling", [None, LINEAR, LLAMA3], ids=["plain", "linear", "llama3"])
def test_rope_parameters_of_transformers_5_are_taken(
    tmp_path: Path, model_type: str, scaling: dict[str, Any] | None
) -> None:
    folder = save_model(tmp_path, model_type, rope_theta=777.0, rope_scaling=scaling)
    before = logits(load_dense(str(folder)).model, IDS)
    nested = {"rope_type": "default", **(scaling or {}), "rope_theta": 777.0}
    edit(folder, "rope_theta", "rope_scaling", rope_parameters=nested)
    loaded = load_dense(str(folder))
    assert np.array_equal(logits(loaded.model, IDS), before)
    assert loaded.config["rope_theta"] == 777.0, "the export reads it there"
    # So that the test can fail: the rope does matter here.
    edit(folder, rope_parameters={**nested, "rope_theta": 10000.0})
    assert not np.allclose(logits(load_dense(str(folder)).model, IDS), before, atol=1e-3)


def test_flat_settings_win_and_layer_types_are_left_alone() -> None:
    nested = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5.0}
    assert flat_rope({"rope_theta": 7.0, "rope_scaling": LINEAR, "rope_parameters": nested}) == {}
    assert flat_rope({"rope_parameters": {"full_attention": nested}}) == {}
    assert flat_rope({"rope_theta": 7.0}) == {}
    assert flat_rope({"rope_parameters": nested}) == {
        "rope_theta": 5.0, "rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 2.0},
    }  # fmt: skip
    phi = {"rope_type": "default", "rope_theta": 5.0, "partial_rotary_factor": 0.75}
    assert flat_rope({"rope_parameters": phi}) == {"rope_theta": 5.0, "partial_rotary_factor": 0.75}


def test_weights_come_in_the_compute_dtype_and_frozen(tmp_path: Path) -> None:
    loaded = load_dense(str(save_model(tmp_path)))
    assert loaded.model.model.layers[0].mlp.up_proj.weight.dtype == compute_dtype()
    assert loaded.model.trainable_parameters()["model"].get("norm") in (None, {})
    assert loaded.tokenizer.eos_token == "<|im_end|>"


def test_the_base_is_the_quantised_model(tmp_path: Path) -> None:
    """On the CPU dense values, but those of MLX's own quantised layers."""
    folder = str(save_model(tmp_path))
    dense = load_dense(folder).model
    base = load_base(folder, bits=4, group_size=64).model
    nn.quantize(dense, group_size=64, bits=4)
    ours, theirs = logits(base, IDS), logits(dense, IDS)
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()
    assert np.array_equal(
        logits(load_base(folder, bits=16, group_size=64).model, IDS),
        logits(load_dense(folder).model, IDS),
    )


def test_a_quantised_checkpoint_loads_with_a_warning(tmp_path: Path) -> None:
    from mlx_lm.utils import save_config
    from mlx_lm.utils import save_model as save_weights

    plain = save_model(tmp_path / "plain")
    loaded = load_dense(str(plain))
    nn.quantize(loaded.model, group_size=64, bits=4)
    folder = save_model(tmp_path / "packed")
    (folder / "model.safetensors").unlink()
    save_weights(folder, loaded.model)
    save_config(
        {**loaded.config, "quantization": {"group_size": 64, "bits": 4}}, folder / "config.json"
    )
    warnings: list[str] = []

    class Listen:
        warn = staticmethod(warnings.append)
        note = staticmethod(lambda _: None)

    again = load_dense(str(folder), reporter=Listen())  # type: ignore[arg-type]
    assert "already quantised" in warnings[0]
    ours, theirs = logits(again.model, IDS), logits(loaded.model, IDS)
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


BROKEN: dict[str, Any] = {
    "config is no JSON": lambda f: (f / "config.json").write_text("{"),
    "unknown architecture": lambda f: edit(f, model_type="never_heard_of"),
    "setting missing": lambda f: edit(f, "hidden_size"),
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "weights cut": lambda f: (f / "model.safetensors").write_bytes(b"\0" * 50),
    "weights of another shape": lambda f: edit(f, intermediate_size=256),
    "weights of fewer layers": lambda f: edit(f, num_hidden_layers=5),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_directory_is_named(tmp_path: Path, case: str) -> None:
    folder = save_model(tmp_path)
    BROKEN[case](folder)
    with pytest.raises(ForgeError) as error:
        load_dense(str(folder))
    assert str(folder) in error.value.message
    assert "cannot load" in error.value.message
    assert error.value.hint
    assert "\n" not in error.value.message


def test_too_little_memory_is_said_before_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(tmp_path)
    monkeypatch.setattr(load, "device_memory", lambda: 1000)
    with pytest.raises(ForgeError, match=r"needs about .* GB to load, 0.0 GB are free"):
        load_dense(str(folder))


def test_a_fingerprint_changes_with_what_decides(tmp_path: Path) -> None:
    folder = save_model(tmp_path)
    before = fingerprint(folder)
    assert set(before) == {
        "config.json", "tokenizer.json", "chat_template.jinja", "tokenizer_config.json",
        "model.safetensors",
    }  # fmt: skip
    assert fingerprint(folder) == before
    (folder / "README.md").write_text("no matter")
    assert fingerprint(folder) == before
    edit(folder, rope_theta=5.0)
    after = fingerprint(folder)
    assert [name for name in before if before[name] != after[name]] == ["config.json"]


@pytest.mark.parametrize("init", ["pissa", "lora"])
def test_on_a_gpu_the_dense_model_never_stands_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, init: str
) -> None:
    """Layers are read, quantised and dropped one after another; the model is the same."""
    from forge_cli.models import quantise

    wide = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4}
    folder = str(save_model(tmp_path / "model", **wide))
    dense = 4 * sum(a.size for _, a in tree_flatten(load_dense(folder).model.parameters()))
    config = AdapterConfig(folder, init, 4, 4.0, 4, 64, [])
    found = {}
    for gpu in (False, True):
        for module in (load, quantise):
            monkeypatch.setattr(module, "on_gpu", lambda gpu=gpu: gpu)
        gc.collect()
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        loaded = load.load_to_quantise(folder)
        settings = {"targets": ["q_proj", "up_proj"], "layers": 2, "seed": 0}
        start_adapters(loaded.model, config, **settings)
        peak = mx.get_peak_memory() - before
        assert (peak > dense) is not gpu
        if gpu:
            assert peak < 0.6 * dense
        load.make_ready(loaded)
        found[gpu] = logits(loaded.model, IDS)
        del loaded
    assert np.allclose(found[True], found[False], atol=2e-3)


def test_a_gpu_base_is_packed_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forge_cli.models import quantise

    folder = str(save_model(tmp_path / "model"))
    for module in (load, quantise):
        monkeypatch.setattr(module, "on_gpu", lambda: True)
    checked = []
    monkeypatch.setattr(load, "check_model", lambda model, name, _: checked.append(name))
    loaded = load.load_to_quantise(folder)
    assert not checked and not loaded.checked
    base = load_base(folder, bits=4, group_size=64)
    assert checked == [folder] and base.checked
    assert isinstance(base.model.model.layers[0].mlp.up_proj, nn.QuantizedLinear)
