"""Adapter folders of PEFT, both ways.

adapter_config.json, and adapter_model.safetensors with `base_model.model.<path>.` before
`lora_A.weight` [r, in], `lora_B.weight` [out, r] and, with DoRA, `lora_magnitude_vector` [out].
PEFT's scale is lora_alpha/r (lora_alpha/√r with rsLoRA), a module's own rank and alpha stand
under patterns (peft.LoraConfig).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.core.jsonl import write_json
from forge_cli.models.adapters import (
    AdapterConfig,
    AdapterFolder,
    load_arrays,
    lora_scale,
    read_adapters,
    save_arrays,
)
from forge_cli.models.backend import mx

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_LEAVES = {"lora_A.weight": "A", "lora_B.weight": "B", "lora_magnitude_vector": "m"}
# What LoRA files can also carry and Forge's layers do not have.
_WITHOUT = {
    "modules_to_save": "whole layers that were trained beside it",
    "trainable_token_indices": "tokens that were trained",
    "layer_replication": "layers that stand in the model twice",
    "target_parameters": "adapters on bare parameters",
}


def is_peft(folder: Path) -> bool:
    """Whether `folder` holds a PEFT adapter."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").exists()


def adapter_folder(path: Path) -> Path:
    """The folder of the adapters that `path`, a run directory or the folder itself, means."""
    return path / "adapters" if (path / "adapters").is_dir() else path


def read_either(path: Path) -> AdapterFolder:
    """The adapters of a run directory, of a folder that Forge wrote, or of PEFT.

    Raises:
        UsageError: there is no such folder, or PEFT wrote what Forge has not.
        ForgeError: files of Forge that cannot be read.
    """
    folder = adapter_folder(path)
    if not folder.is_dir():
        raise UsageError(
            f"{path}: no such adapters", "give a run directory or a folder of Forge or PEFT"
        )
    return read_peft(folder) if is_peft(folder) else read_adapters(folder)


def write_peft(folder: Path, found: AdapterFolder) -> None:
    """Write adapters as PEFT reads them, for the original base.

    Where A₀, B₀ were taken out of W the pair becomes A' = [A; A₀], B' = [B, −B₀], so that
    W + s·B'A' = (W − s·B₀A₀) + s·BA (PiSSA, arXiv 2404.02948, appendix C). Of a base that
    was not quantised that is the trained function; of a quantised one it lacks what the
    quantiser changed in the residual.
    """
    config = found.config
    arrays: dict[str, mx.array] = {}
    ranks: dict[str, int] = {}
    for name in config.modules:
        A, B = found.arrays[f"{name}.A"], found.arrays[f"{name}.B"]
        if f"{name}.A" in found.initial:
            A = mx.concatenate([A, found.initial[f"{name}.A"].astype(A.dtype)])
            B = mx.concatenate([B, -found.initial[f"{name}.B"].astype(B.dtype)], axis=1)
        ranks[name] = len(A)
        arrays[f"{_PREFIX}{name}.lora_A.weight"] = A
        arrays[f"{_PREFIX}{name}.lora_B.weight"] = B
        if config.dora:
            arrays[f"{_PREFIX}{name}.lora_magnitude_vector"] = found.arrays[f"{name}.m"]
    alphas = {name: config.scale_of(name) * r for name, r in ranks.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    folder.mkdir(parents=True, exist_ok=True)
    save_arrays(folder / WEIGHTS, arrays, {"format": "pt"})
    told = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": config.model,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: r for name, r in ranks.items() if r != rank},
        "alpha_pattern": {name: a for name, a in alphas.items() if a != alpha},
        "target_modules": config.modules,
        "use_dora": config.dora,
        "use_rslora": False,  # its scale is in lora_alpha
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    write_json(folder / CONFIG, told)


def read_peft(folder: Path) -> AdapterFolder:
    """A PEFT adapter for a base that is not quantised, arrays float32.

    Raises:
        UsageError: not LoRA, a part that Forge's layers do not have, an adapter that
            belongs to a residual, or files that cannot be read.
    """
    try:
        told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        stored = load_arrays(folder / WEIGHTS)
    except (OSError, RuntimeError, json.JSONDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{folder}: no PEFT adapter: {reason}", f"it needs {CONFIG} and {WEIGHTS}"
        ) from None
    _check(folder, told)
    arrays = {_ours(folder, name): value.astype(mx.float32) for name, value in stored.items()}
    modules = sorted({name.rpartition(".")[0] for name in arrays})
    for name in modules:
        if f"{name}.A" not in arrays or f"{name}.B" not in arrays:
            raise UsageError(f"{folder}: {name} has only one of lora_A, lora_B", "save it again")
    ranks = {name: len(arrays[f"{name}.A"]) for name in modules}
    rank, alpha, rslora = told["r"], float(told["lora_alpha"]), bool(told.get("use_rslora"))
    scales = {}
    for name, r in ranks.items():
        own = float(_matching(told.get("alpha_pattern") or {}, name, alpha))
        scales[name] = lora_scale(own, r, rslora)
    config = AdapterConfig(
        model=told.get("base_model_name_or_path") or "", init="lora", rank=rank, alpha=alpha,
        bits=16, group_size=64, modules=modules, rslora=rslora, dora=bool(told.get("use_dora")),
        ranks={name: r for name, r in ranks.items() if r != rank},
        scales={n: s for n, s in scales.items() if s != lora_scale(alpha, rank, rslora)},
    )  # fmt: skip
    return AdapterFolder(config, arrays, {})


def _check(folder: Path, told: dict[str, Any]) -> None:
    start = told.get("init_lora_weights")
    if told.get("peft_type") != "LORA":
        raise UsageError(f"{folder}: a PEFT adapter of type {told.get('peft_type')}", "give LoRA")
    for name, what in _WITHOUT.items():
        if told.get(name):
            raise UsageError(f"{folder}: has {name}: {what}", "merge it into its base instead")
    if told.get("bias", "none") != "none" or told.get("lora_bias"):
        raise UsageError(f"{folder}: has biases that were trained", "merge it into its base")
    if told.get("fan_in_fan_out"):
        raise UsageError(f"{folder}: its layers are [in, out]", "Forge has only [out, in]")
    if isinstance(start, str) and start.startswith(("pissa", "olora", "corda", "loftq")):
        raise UsageError(
            f"{folder}: started as {start}: it belongs to a residual, not to the model",
            "save it with path_initial_model_for_weight_conversion, which turns it into LoRA",
        )


def _ours(folder: Path, name: str) -> str:
    path, _, leaf = name.removeprefix(_PREFIX).partition(".lora_")
    if not name.startswith(_PREFIX) or f"lora_{leaf}" not in _LEAVES:
        raise UsageError(f"{folder}: {name} is no part of a LoRA adapter", "save it again")
    return f"{path}.{_LEAVES[f'lora_{leaf}']}"


def _matching(pattern: Mapping[str, Any], name: str, default: Any) -> Any:
    """The value of the first key that means the module, as peft.utils.get_pattern_key does."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default
