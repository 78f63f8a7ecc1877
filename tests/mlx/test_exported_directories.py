"""Directories for mlx-lm, transformers and PEFT: read back, they are the trained function."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forge_cli import export
from forge_cli.core.config import Settings
from forge_cli.core.errors import ForgeError, GateFailed, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import write_records
from forge_cli.core.run_dir import RunDir
from forge_cli.evaluate.sides import SideSpec, open_side
from forge_cli.export.directories import whole_folder
from forge_cli.export.merged import published_dtype, write_safetensors
from forge_cli.export.parity import THRESHOLDS, Threshold
from forge_cli.models.adapters import (
    AdapterConfig,
    AdapterFolder,
    adapter_arrays,
    get_module,
    load_arrays,
    load_tuned,
    read_adapters,
    save_adapters,
    save_arrays,
)
from forge_cli.models.backend import mx
from forge_cli.models.load import load_dense
from forge_cli.models.peft import CONFIG, WEIGHTS, read_peft, write_peft
from forge_cli.pipeline import export as export_run
from forge_cli.train.initial import start_adapters
from tiny_train import example, logits, save_model

OURS = ("gate_proj", "down_proj", "up_proj")
IDS = list(range(4, 60))
HELD_OUT = [example(3, question, "test") for question in range(2)]
CASES: dict[str, dict[str, Any]] = {
    "pissa, 4 bits, two ranks": {"init": "pissa", "bits": 4},
    "qpissa, 8 bits, dora": {"init": "qpissa", "bits": 8, "dora": True},
    "lora, rslora": {"init": "lora", "bits": 16, "rslora": True},
    "pissa, dora, dense": {"init": "pissa", "bits": 16, "dora": True},
}


class Notes(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def trained(root: Path, *, model_type: str = "llama", sure: float = 1, **changes: Any) -> Path:
    """An adapter folder whose A, B (and m) have moved away from their start.

    Args:
        sure: of its next token, as a real model is; a random one has many that are nearly best.
    """
    folder = save_model(root / "model", model_type, tie_word_embeddings=True)
    if sure != 1:
        arrays = load_arrays(folder / "model.safetensors")
        arrays["model.embed_tokens.weight"] = arrays["model.embed_tokens.weight"] * sure
        save_arrays(folder / "model.safetensors", arrays, {"format": "pt"})
    if model_type == "qwen3_moe":
        publish_experts(folder, "mlp")
    name = str(folder)
    loaded = load_dense(name)
    config = replace(AdapterConfig(name, "lora", 4, 12.0, 4, 64, []), **changes)
    config, initial = start_adapters(
        loaded.model, config, targets=["q_proj", "down_proj"], layers="last 1", seed=0,
        rank_pattern={"q_proj": 6},
    )  # fmt: skip
    for path in config.modules:
        layer = get_module(loaded.model, path)
        layer.A = layer.A * 1.3
        layer.B = layer.B + 0.02 * mx.random.normal(layer.B.shape, key=mx.random.key(1))
        if config.dora:
            layer.m = layer.m * 1.1
    save_adapters(root / "adapters", config, adapter_arrays(loaded.model), initial)
    return root / "adapters"


def apart(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_mlx_and_adapter_are_the_trained_function(
    tmp_path: Path, case: str, model_type: str
) -> None:
    import mlx_lm

    adapters = trained(tmp_path, model_type=model_type, **CASES[case])
    wanted = logits(load_tuned(adapters).model, IDS)
    files, facts = export.run(
        adapters=adapters, out=tmp_path, name="x", to=["mlx", "adapter"], held_out=HELD_OUT,
        mlx_bits=16, dtype="float32",
    )  # fmt: skip
    assert [file.name for file in files] == ["x-mlx", "x-adapter"]
    assert min(fact["top1_agreement"] for fact in facts.values()) > 0.99
    assert set(facts) == {"parity.mlx", "parity.adapter"}
    # As a user loads them: quantised layers, and mlx-lm's own adapter code.
    merged, _ = mlx_lm.load(str(files[0]))
    over, _ = mlx_lm.load(str(files[1] / "base"), adapter_path=str(files[1] / "adapter"))
    assert apart(logits(merged, IDS), wanted) < 1e-4
    assert apart(logits(over, IDS), wanted) < 1e-4
    base, _ = mlx_lm.load(str(files[1] / "base"))
    assert apart(logits(base, IDS), wanted) > 1e-2


@pytest.mark.parametrize("case", [name for name in CASES if CASES[name]["bits"] == 16])
def test_peft_is_exact_over_a_base_that_is_not_quantised(tmp_path: Path, case: str) -> None:
    adapters = trained(tmp_path, **CASES[case])
    notes = Notes()
    [folder], facts = export.run(
        adapters=adapters, out=tmp_path, name="x", to=["peft"], held_out=HELD_OUT, reporter=notes
    )
    assert facts["parity.peft"]["max_kl"] < 1e-6 and not notes.warnings
    model = load_tuned(adapters).model
    told = json.loads((folder / CONFIG).read_text())
    stored = {k: np.array(v) for k, v in load_arrays(folder / WEIGHTS).items()}
    dense = load_dense(told["base_model_name_or_path"]).model
    for name in told["target_modules"]:
        # PEFT's own arithmetic (tuners/lora: scaling, get_delta_weight; dora: weight norm).
        A, B = (stored[f"base_model.model.{name}.lora_{leaf}.weight"] for leaf in "AB")
        rank = told["rank_pattern"].get(name, told["r"])
        assert A.shape[0] == B.shape[1] == rank
        scale = told["alpha_pattern"].get(name, told["lora_alpha"]) / rank
        weight = np.array(get_module(dense, name).weight) + scale * B @ A
        if told["use_dora"]:
            m = stored[f"base_model.model.{name}.lora_magnitude_vector"]
            weight = weight * (m / np.linalg.norm(weight, axis=1))[:, None]
        wanted = np.array(get_module(model, name).merged())
        assert apart(weight, wanted) < 1e-5


def test_peft_over_a_quantised_residual_says_that_it_is_not_exact(tmp_path: Path) -> None:
    adapters = trained(tmp_path, init="pissa", bits=4)
    notes = Notes()
    export.run(
        adapters=adapters, out=tmp_path, name="x", to=["peft"], held_out=HELD_OUT, reporter=notes
    )
    assert "near, not equal" in notes.warnings[0] and "--to adapter is exact" in notes.warnings[0]


def test_peft_comes_back(tmp_path: Path) -> None:
    adapters = trained(tmp_path, init="lora", bits=16, dora=True)
    found = read_adapters(adapters)
    write_peft(tmp_path / "peft", found)
    again = read_peft(tmp_path / "peft")
    assert again.config.modules == found.config.modules and again.config.dora
    for name in found.config.modules:
        assert again.config.rank_of(name) == found.config.rank_of(name)
        assert again.config.scale_of(name) == pytest.approx(found.config.scale_of(name))
    assert set(again.arrays) == set(found.arrays)
    assert all(mx.array_equal(again.arrays[k], found.arrays[k]).item() for k in found.arrays)


def publish_experts(folder: Path, place: str, leaves: tuple[str, ...] = OURS) -> None:
    """Write the experts one by one, as transformers publishes such a model."""
    arrays = {}
    for name, array in weights_of(folder).items():
        before, stacked, after = name.partition(f"{place}.switch_mlp.")
        if not stacked:
            arrays[name] = array
            continue
        leaf = leaves[OURS.index(after.removesuffix(".weight"))]
        arrays |= {f"{before}{place}.experts.{n}.{leaf}.weight": one for n, one in enumerate(array)}
    save_arrays(folder / "model.safetensors", arrays, {"format": "pt"})


def wide(root: Path, **changes: Any) -> Path:
    """Adapters over a base that is not quantised."""
    return trained(root, init="lora", bits=16, **changes)


def weights_of(folder: Path) -> dict[str, mx.array]:
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_arrays(file).items()}


@pytest.mark.parametrize("model_type", ["llama", "qwen3_moe"])
@pytest.mark.parametrize("bits", [8, 4])
def test_mlx_is_quantised_as_mlx_lm_quantises_the_merged_model(
    tmp_path: Path, model_type: str, bits: int
) -> None:
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model, quantize_model

    options: dict[str, Any] = {
        "adapters": wide(tmp_path, model_type=model_type), "name": "x", "to": ["mlx"],
        "parity": False, "mlx_group_size": 32, "dtype": "float32",
    }  # fmt: skip
    [ours], _ = export.run(out=tmp_path / "ours", mlx_bits=bits, **options)
    [plain], _ = export.run(out=tmp_path / "plain", mlx_bits=16, **options)
    model, config = load_model(plain)
    model, told = quantize_model(model, config, 32, bits)
    wanted, found = dict(tree_flatten(model.parameters())), weights_of(ours)
    assert set(found) == set(wanted) and "model.layers.1.self_attn.q_proj.scales" in found
    assert all(mx.array_equal(found[name], wanted[name]).item() for name in wanted)
    quantised = json.loads((ours / "config.json").read_text())["quantization"]
    # Also that a router stays in 8 bits.
    assert quantised == {
        k: {**v, "mode": "affine"} if isinstance(v, dict) else v
        for k, v in told["quantization"].items()
    }
    assert ("model.layers.0.mlp.gate" in quantised) == (model_type == "qwen3_moe")


def test_mlx_has_the_dtype_of_the_base_and_is_held_to_its_bits(tmp_path: Path) -> None:
    import mlx_lm

    adapters = wide(tmp_path, sure=4)
    wanted = logits(load_tuned(adapters).model, IDS)
    notes = Notes()
    kl = []
    for bits in (8, 6):
        [folder], facts = export.run(
            adapters=adapters, out=tmp_path, name="x", to=["mlx"], mlx_bits=bits,
            held_out=HELD_OUT, reporter=notes,
        )  # fmt: skip
        fact = facts["parity.mlx"]
        assert (fact["bits"], fact["dtype"]) == (bits, "float16")
        kl.append(fact["mean_kl"])
    assert 0 < kl[0] < kl[1]
    assert {str(a.dtype).split(".")[-1] for a in weights_of(folder).values()} == {
        "uint32", "float16",
    }  # fmt: skip
    model, _ = mlx_lm.load(str(folder))
    assert 1e-4 < apart(logits(model, IDS), wanted) < 0.3


def test_mlx_that_lost_too_much_for_its_bits_is_rejected(tmp_path: Path) -> None:
    adapters = wide(tmp_path)  # many tokens nearly best: 4 bits change 6 of 10
    for _ in range(2):  # also where a rejected one stands already
        with pytest.raises(GateFailed, match=r"x-mlx\.rejected: not the trained .*needed: 70%"):
            export.run(
                adapters=adapters, out=tmp_path, name="x", to=["mlx"], mlx_bits=4,
                held_out=HELD_OUT,
            )  # fmt: skip
    assert (tmp_path / "x-mlx.rejected").is_dir() and not (tmp_path / "x-mlx").exists()


def test_layers_whose_rows_fill_no_groups_are_told(tmp_path: Path) -> None:
    notes = Notes()
    [folder], _ = export.run(
        adapters=wide(tmp_path), out=tmp_path, name="x", to=["mlx"], mlx_group_size=128,
        parity=False, reporter=notes,
    )  # fmt: skip
    assert "2 of 15 layers stay float16: their rows do not fill groups of 128" in notes.notes
    assert weights_of(folder)["model.layers.0.mlp.down_proj.weight"].dtype == mx.float16


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float32"])
def test_safetensors_are_the_merged_weights_by_the_names_of_the_checkpoint(
    tmp_path: Path, dtype: str
) -> None:
    adapters = trained(tmp_path, init="pissa", bits=4)
    [folder], facts = export.run(
        adapters=adapters, out=tmp_path, name="x", to=["safetensors"], dtype=dtype,
        held_out=HELD_OUT,
    )  # fmt: skip
    expected = {"auto": "float16"}.get(dtype, dtype)
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == expected and "quantization" not in config
    assert facts["parity.safetensors"]["dtype"] == expected
    found, base = weights_of(folder), weights_of(tmp_path / "model")
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in base.items()}
    layer = get_module(load_tuned(adapters).model, "model.layers.1.self_attn.q_proj")
    merged = layer.merged().astype(getattr(mx, expected))
    assert mx.array_equal(found["model.layers.1.self_attn.q_proj.weight"], merged).item()


@pytest.mark.parametrize("model_type", ["llama", "qwen3_moe"])
def test_transformers_reads_the_safetensors(tmp_path: Path, model_type: str) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    adapters = wide(tmp_path, model_type=model_type)
    [folder], _ = export.run(
        adapters=adapters, out=tmp_path, name="x", to=["safetensors"], held_out=HELD_OUT
    )
    model, told = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not told["missing_keys"] and not told["unexpected_keys"]
    with torch.no_grad():
        found = model(torch.tensor([IDS])).logits[0].numpy()
    assert apart(found, logits(load_tuned(adapters).model, IDS)) < 2e-3  # float16


@pytest.mark.parametrize(
    ("model_type", "place", "leaves"),
    [
        ("qwen3_moe", "mlp", OURS),
        ("mixtral", "block_sparse_moe", ("w1", "w2", "w3")),
    ],
)
def test_experts_are_written_one_by_one(
    tmp_path: Path, model_type: str, place: str, leaves: tuple[str, ...]
) -> None:
    folder = save_model(tmp_path / "model", model_type)
    publish_experts(folder, place, leaves)
    published = weights_of(folder)
    out = tmp_path / "out"
    out.mkdir()
    write_safetensors(out, load_dense(str(folder)), "float16")
    found = weights_of(out)
    assert f"model.layers.1.{place}.experts.3.{leaves[1]}.weight" in found
    assert set(found) == set(published)
    assert all(mx.array_equal(found[name], published[name]).item() for name in published)


def test_names_that_transformers_does_not_know_are_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    loaded = load_dense(str(folder))
    odd = {f"text.{name}": array for name, array in weights_of(folder).items()}
    save_arrays(folder / "model.safetensors", odd)
    with pytest.raises(ForgeError, match=r"holds lm_head.weight in another form"):
        write_safetensors(tmp_path, loaded, "float16")


def test_the_dtype_that_a_base_was_published_in(tmp_path: Path) -> None:
    loaded = load_dense(str(save_model(tmp_path / "model")))
    assert published_dtype(loaded) == "float16"  # what it is stored in
    told = [{"dtype": "float32"}, {"text_config": {"torch_dtype": "bfloat16"}}]
    found = [published_dtype(replace(loaded, config=loaded.config | own)) for own in told]
    assert found == ["float32", "bfloat16"]
    (tmp_path / "model" / "model.safetensors").unlink()
    assert published_dtype(loaded) == "bfloat16"


def test_a_model_directory_is_a_side(tmp_path: Path) -> None:
    adapters = wide(tmp_path)
    [folder], _ = export.run(
        adapters=adapters, out=tmp_path, name="x", to=["mlx"], mlx_bits=16, dtype="float32",
        parity=False,
    )  # fmt: skip
    chats = [row.messages for row in HELD_OUT]
    sides = [
        open_side(SideSpec.parse(name), adapters, url=None, max_tokens=1)
        for name in ("base", "tuned", str(folder))
    ]
    base, tuned, exported = (np.mean(side.losses(chats) or [np.nan]) for side in sides)
    assert abs(exported - tuned) < 0.01 * abs(base - tuned)
    assert sides[2].parameters != sides[1].parameters


def test_a_run_tells_what_its_mlx_directory_keeps(tmp_path: Path) -> None:
    adapters = wide(tmp_path / "run", sure=4, alpha=60.0)
    rows = [example(context, question, "test") for context in range(4) for question in range(4)]
    losses = []
    for name in ("base", "tuned"):
        side = open_side(SideSpec.parse(name), adapters, url=None, max_tokens=1)
        losses.append(side.losses([row.messages for row in rows]) or [])
    # Moved at random, it is better at some rows and worse at others.
    gained = [row for row, base, tuned in zip(rows, *losses, strict=True) if tuned < base]
    model = str(tmp_path / "run" / "model")
    run = RunDir(tmp_path / "run", {"settings": {}, "stages": {"train": {}}, "metrics": {},
                                    "files": []})  # fmt: skip
    write_records(gained, str(run.file("data", "examples.jsonl")))
    s = Settings(model=model, to=["mlx"])
    assert export_run(run, s, SILENT) == [run.path / "export" / "run-mlx"]
    facts = run.state["metrics"]["export"]
    kept = facts["retention.mlx"]
    assert kept["share"] == pytest.approx(1, abs=0.2) and kept["n"] == len(gained) > 2
    assert kept["bytes"] > 100_000 and facts["parity.mlx"]["bits"] == 8
    # What was measured of a directory is not said of the one that takes its place.
    export_run(run, s.model_copy(update={"mlx_bits": 4, "parity": False}), SILENT)
    assert run.state["metrics"]["export"] == {}


def peft_folder(folder: Path, **changes: Any) -> Path:
    """A PEFT folder as PEFT writes it, `changes` in its config."""
    config = AdapterConfig("m", "lora", 2, 4.0, 16, 64, ["model.layers.0.self_attn.q_proj"])
    arrays = {f"{config.modules[0]}.A": mx.ones((2, 8)), f"{config.modules[0]}.B": mx.ones((8, 2))}
    write_peft(folder, AdapterFolder(config, arrays, {}))
    told = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(told | changes))
    return folder


def test_peft_scales_by_pattern_and_rslora(tmp_path: Path) -> None:
    changes = {"alpha_pattern": {"layers.0.*q_proj": 6.0}, "use_rslora": True}
    found = read_peft(peft_folder(tmp_path, **changes))
    assert found.config.scale_of(found.config.modules[0]) == pytest.approx(6 / 2**0.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "IA3"}, "type IA3"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"fan_in_fan_out": True}, r"\[in, out\]"),
        ({"init_lora_weights": "pissa_niter_4"}, "belongs to a residual"),
    ],
)
def test_peft_that_is_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        read_peft(peft_folder(tmp_path, **changes))


def test_peft_with_foreign_or_missing_arrays_is_refused(tmp_path: Path) -> None:
    folder = peft_folder(tmp_path)
    arrays = load_arrays(folder / WEIGHTS)
    save_arrays(folder / WEIGHTS, arrays | {"base_model.model.x.weight": mx.ones((2, 2))})
    with pytest.raises(UsageError, match=r"x\.weight"):
        read_peft(folder)
    half = {k: v for k, v in arrays.items() if "lora_A" in k}
    save_arrays(folder / WEIGHTS, half)
    with pytest.raises(UsageError, match="only one of"):
        read_peft(folder)
    (folder / WEIGHTS).write_bytes(b"no")
    with pytest.raises(UsageError, match="no PEFT adapter"):
        read_peft(folder)


def test_a_directory_that_answers_otherwise_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = trained(tmp_path, init="pissa", bits=4)
    monkeypatch.setitem(THRESHOLDS, "f32", Threshold(1.01, 0.0, 1.0))  # nothing is good enough
    with pytest.raises(GateFailed, match="not the trained model"):
        export.run(adapters=adapters, out=tmp_path, name="x", to=["adapter"], held_out=HELD_OUT)
    assert (tmp_path / "x-adapter.rejected").is_dir() and not (tmp_path / "x-adapter").exists()


def test_an_export_that_is_cut_short_leaves_the_last_one(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    with whole_folder(folder) as new:
        (new / "a").write_text("1")
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as new:
        (new / "a").write_text("2")
        raise KeyboardInterrupt
    assert (folder / "a").read_text() == "1"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("kind", ["mlx", "safetensors"])
def test_large_models_are_written_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("forge_cli.export.merged._SHARD", 100_000)
    adapters = trained(tmp_path, init="pissa", bits=4)
    [folder], _ = export.run(
        adapters=adapters, out=tmp_path, name="x", to=[kind], held_out=HELD_OUT
    )
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index.values()) == {file.name for file in folder.glob("model-*.safetensors")}
    assert set(index) == set(weights_of(folder))
