"""Model directories and adapters that mlx-lm and transformers load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import write_json
from forge_cli.export.gguf import Weight
from forge_cli.export.merge import merged_weights
from forge_cli.export.parity import Probe
from forge_cli.export.read_back import compare_logits, read_back
from forge_cli.models.adapters import AdapterFolder, get_module, read_adapters, save_arrays
from forge_cli.models.backend import mx
from forge_cli.models.load import Loaded, load_dense
from forge_cli.models.lora import without_start
from forge_cli.models.peft import write_peft
from forge_cli.models.quantise import pack_model

_SHARD = 4 << 30
_TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "chat_template*", "generation_config.json",
)  # fmt: skip


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `folder` when all is written."""
    new = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def write_directory(
    kind: str,
    loaded: Loaded,
    adapters: Path,
    folder: Path,
    *,
    probes: Sequence[Probe] | None,
    reporter: Reporter,
) -> tuple[list[Path], dict[str, Any]]:
    """Write `folder` and, with probes, read it back and compare it with the trained model.

    Args:
        kind: mlx, adapter or peft.
        adapters: the adapter folder that `loaded` came from.

    Returns:
        The folder, and what the comparison came to by `parity.<kind>`.

    Raises:
        GateFailed: it is not the trained model; it is kept as `….rejected`.
    """
    found = read_adapters(adapters)
    with whole_folder(folder) as new:
        if kind == "mlx":
            write_merged(new, loaded, merged_weights(loaded.model))
        elif kind == "adapter":
            write_adapter(new, found)
        else:
            write_peft(new, found)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    facts = {}
    if probes is not None:
        exact = kind != "peft" or found.config.bits == 16
        model = read_back(kind, folder, loaded.name)
        facts[f"parity.{kind}"] = compare_logits(model, folder, probes, exact, reporter)
    reporter.note(f"wrote {folder} ({size / 1e6:.0f} MB)")
    return [folder], facts


def write_merged(folder: Path, loaded: Loaded, weights: Mapping[str, Weight]) -> None:
    """The trained function as plain float32 weights, some gigabytes a file.

    Args:
        weights: of `export.merge.merged_weights`; computed one file at a time.
    """
    config = {k: v for k, v in _config(loaded).items() if not k.startswith("quantization")}
    config |= {"torch_dtype": "float32", "dtype": "float32"}
    write_json(folder / "config.json", config)
    _copy_tokenizer(loaded.path, folder)
    parts = list(_parts(weights))
    index: dict[str, str] = {}
    for number, names in enumerate(parts, 1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        if len(parts) == 1:
            file = "model.safetensors"
        arrays = {name: mx.array(weights[name].read()) for name in names}
        save_arrays(folder / file, arrays, {"format": "mlx"})
        index |= dict.fromkeys(names, file)
    if len(parts) > 1:
        size = sum(_bytes(weight) for weight in weights.values())
        told = {"metadata": {"total_size": size}, "weight_map": index}
        write_json(folder / "model.safetensors.index.json", told)


def write_adapter(folder: Path, found: AdapterFolder) -> None:
    """base/: the residual as it is served; adapter/: what mlx-lm puts over it. Together exact.

    mlx-lm has one rank and one scale for all modules: thinner pairs get rows of zeros, and
    s goes into B.
    """
    _write_base(folder / "base", found)
    config = found.config
    rank = max(len(found.arrays[f"{name}.A"]) for name in config.modules)
    arrays = {}
    for name in config.modules:
        A, B = (found.arrays[f"{name}.{leaf}"].astype(mx.float32) for leaf in ("A", "B"))
        room = rank - len(A)
        arrays[f"{name}.lora_a"] = mx.pad(A.T, [(0, 0), (0, room)])
        arrays[f"{name}.lora_b"] = mx.pad(config.scale_of(name) * B.T, [(0, room), (0, 0)])
        if config.dora:
            arrays[f"{name}.m"] = found.arrays[f"{name}.m"]
    (folder / "adapter").mkdir()
    save_arrays(folder / "adapter" / "adapters.safetensors", arrays, {"format": "mlx"})
    write_json(
        folder / "adapter" / "adapter_config.json",
        {
            "fine_tune_type": "dora" if config.dora else "lora",
            "num_layers": 0,  # whole paths as keys choose the modules
            "lora_parameters": {
                "rank": rank, "scale": 1.0, "dropout": 0.0, "keys": config.modules,
            },
        },
    )  # fmt: skip


def _write_base(folder: Path, found: AdapterFolder) -> None:
    """The base less what was taken out of it, quantised by MLX's own layers."""
    from mlx.utils import tree_flatten

    config = found.config
    loaded = load_dense(config.model)
    for name in config.modules:
        layer = get_module(loaded.model, name)
        A0, B0 = (found.initial.get(f"{name}.{leaf}") for leaf in ("A", "B"))
        layer.weight = without_start(layer.weight, A0, B0, config.scale_of(name))
        mx.eval(layer.weight)
    told = {k: v for k, v in _config(loaded).items() if not k.startswith("quantization")}
    if config.bits != 16:
        taken = {name.rpartition(".")[0] for name in found.initial}
        stored = loaded.stored_as(config.quantiser)
        kept = {name: layer for name, layer in stored.items() if name not in taken}
        pack_model(loaded.model, config.quantiser, kept)
        told["quantization"] = told["quantization_config"] = dict(config.quantiser)
    folder.mkdir(parents=True)
    weights = dict(tree_flatten(loaded.model.parameters()))
    save_arrays(folder / "model.safetensors", weights, {"format": "mlx"})
    write_json(folder / "config.json", told)
    _copy_tokenizer(loaded.path, folder)


def _config(loaded: Loaded) -> dict[str, Any]:
    return dict(json.loads((loaded.path / "config.json").read_text(encoding="utf-8")))


def _copy_tokenizer(source: Path, target: Path) -> None:
    for pattern in _TOKENIZER:
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)


def _parts(weights: Mapping[str, Weight]) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, weight in weights.items():
        if names and size + _bytes(weight) > _SHARD:
            yield names
            names, size = [], 0
        names.append(name)
        size += _bytes(weight)
    yield names


def _bytes(weight: Weight) -> int:
    size = 4
    for side in weight.shape:
        size *= side
    return size


__all__ = ["whole_folder", "write_adapter", "write_directory", "write_merged"]
