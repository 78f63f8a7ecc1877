"""Model directories and adapters that mlx-lm and transformers load."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import write_json
from forge_cli.export.merged import (
    base_config,
    copy_tokenizer,
    published_dtype,
    write_mlx,
    write_safetensors,
)
from forge_cli.export.parity import THRESHOLDS, Probe, Threshold
from forge_cli.export.read_back import PLAIN, QUANTISED, compare_logits, read_back
from forge_cli.models.adapters import AdapterFolder, get_module, read_adapters, save_arrays
from forge_cli.models.backend import mx
from forge_cli.models.load import Loaded, load_dense
from forge_cli.models.lora import without_start
from forge_cli.models.peft import write_peft
from forge_cli.models.quantise import Quantiser, pack_model


@dataclass(frozen=True)
class Form:
    """How merged weights are written.

    Attributes:
        dtype: bfloat16, float16 or float32; auto: as the base was published.
        mlx_bits, mlx_group_size: of mlx (bits 16: not quantised).
    """

    dtype: str = "auto"
    mlx_bits: int = 8
    mlx_group_size: int = 64

    @property
    def quantiser(self) -> Quantiser:
        """How mlx is quantised."""
        return {"bits": self.mlx_bits, "group_size": self.mlx_group_size, "mode": "affine"}


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
    form: Form,
    probes: Sequence[Probe] | None,
    reporter: Reporter,
) -> tuple[list[Path], dict[str, Any]]:
    """Write `folder` and, with probes, read it back and compare it with the trained model.

    Args:
        kind: mlx, safetensors, adapter or peft.
        adapters: the adapter folder that `loaded` came from.

    Returns:
        The folder, and what the comparison came to by `parity.<kind>`.

    Raises:
        GateFailed: it is not the trained model; it is kept as `….rejected`.
    """
    found = read_adapters(adapters)
    dtype = published_dtype(loaded) if form.dtype == "auto" else form.dtype
    limit: Threshold | None = THRESHOLDS["f32"]
    told: dict[str, Any] = {}
    with whole_folder(folder) as new:
        if kind == "mlx":
            write_mlx(new, loaded, dtype, form.quantiser, reporter)
            told = {"bits": form.mlx_bits, "dtype": dtype}
            limit = QUANTISED.get(form.mlx_bits, PLAIN[dtype])
        elif kind == "safetensors":
            write_safetensors(new, loaded, dtype)
            told, limit = {"dtype": dtype}, PLAIN[dtype]
        elif kind == "adapter":
            write_adapter(new, found)
        else:
            write_peft(new, found)
            limit = limit if found.config.bits == 16 else None
    facts = {}
    if probes is not None:
        model = read_back(kind, folder, loaded.name)
        facts[f"parity.{kind}"] = told | compare_logits(model, folder, probes, limit, reporter)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    reporter.note(f"wrote {folder} ({size / 1e6:.0f} MB)")
    return [folder], facts


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
    told = base_config(loaded)
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
    copy_tokenizer(loaded.path, folder)


__all__ = ["Form", "whole_folder", "write_adapter", "write_directory"]
