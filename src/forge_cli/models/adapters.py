"""Adapter folders, and the tuned model that one makes with its base.

W_res is not stored: it is quantised again from the base weights less s·B₀A₀, with the stored
A₀, B₀ (`initial.safetensors`). Where nothing was taken out (LoRA; LoftQ with T = 1) there is
no such file. A hash of the residual tells whether it came out as it was trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import atomic_file, write_json
from forge_cli.models.backend import compute_dtype, mx, nn
from forge_cli.models.load import Loaded, load_base, load_to_quantise, make_ready
from forge_cli.models.lora import LoRALinear, row_norms, without_start
from forge_cli.models.quantise import Quantiser, quantise_layer, quantise_model
from forge_cli.models.targets import get_module, set_module, target_modules


@dataclass(frozen=True)
class AdapterConfig:
    """What is needed, besides the arrays, to make the tuned model again.

    Attributes:
        init: where A and B started.
        rank, alpha: of every module that `ranks` and `scales` do not name.
        modules: paths of the layers that have adapters.
        mode: of the quantiser, affine or mxfp4.
        ranks, scales: by module, where they differ.
    """

    model: str
    init: str
    rank: int
    alpha: float
    bits: int
    group_size: int
    modules: list[str]
    residual_sha256: str = ""
    mode: str = "affine"
    rslora: bool = False
    dora: bool = False
    ranks: dict[str, int] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """s = alpha/r, or alpha/√r with rsLoRA."""
        return lora_scale(self.alpha, self.rank, self.rslora)

    def rank_of(self, module: str) -> int:
        """r of one module."""
        return self.ranks.get(module, self.rank)

    def scale_of(self, module: str) -> float:
        """s of one module."""
        return self.scales.get(module, self.scale)

    @property
    def quantiser(self) -> Quantiser:
        """How the base is quantised, as keyword arguments of `round_trip`."""
        return {"bits": self.bits, "group_size": self.group_size, "mode": self.mode}


def lora_scale(alpha: float, rank: int, rslora: bool) -> float:
    """s = alpha/r; rsLoRA (arXiv 2312.03732): alpha/√r, so that a large r learns as fast."""
    return float(alpha / rank**0.5) if rslora else alpha / rank


def adapter_arrays(model: nn.Module) -> dict[str, mx.array]:
    """The trained arrays by name: `<module>.A`, `<module>.B` and with DoRA `<module>.m`."""
    return {
        f"{name}.{leaf}": module[leaf]
        for name, module in model.named_modules()
        if isinstance(module, LoRALinear)
        for leaf in ("A", "B", "m")
        if leaf in module
    }


def residual_hash(model: nn.Module) -> str:
    """SHA-256 over the residuals' bytes: tells whether they were made again exactly."""
    digest = hashlib.sha256()
    for _, module in sorted(model.named_modules()):
        if isinstance(module, LoRALinear):
            for leaf in ("weight", "scales", "biases"):
                if module.base.get(leaf) is not None:
                    digest.update(bytes(memoryview(module.base[leaf].view(mx.uint8))))
    return digest.hexdigest()


def save_adapters(
    folder: Path, config: AdapterConfig, arrays: dict[str, mx.array], initial: dict[str, mx.array]
) -> None:
    """Write config.json, adapters.safetensors (A, B, m), initial.safetensors (A₀, B₀) if any."""
    folder.mkdir(parents=True, exist_ok=True)
    if initial:
        save_arrays(folder / "initial.safetensors", initial)
    else:  # what another run left here would be taken out of the weights
        (folder / "initial.safetensors").unlink(missing_ok=True)
    save_arrays(folder / "adapters.safetensors", arrays)
    write_json(folder / "config.json", asdict(config))


def save_arrays(
    path: Path, arrays: dict[str, mx.array], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, atomically."""
    with atomic_file(path) as stream:
        mx.save_safetensors(cast(BinaryIO, stream), arrays, metadata=metadata)


def load_arrays(path: Path) -> dict[str, mx.array]:
    """Read a safetensors file."""
    return cast(dict[str, mx.array], mx.load(str(path)))


def load_initial(folder: Path) -> dict[str, mx.array]:
    """A₀, B₀ of an adapter folder; empty where nothing was taken out, or there is no folder."""
    file = folder / "initial.safetensors"
    return load_arrays(file) if file.exists() else {}


@dataclass(frozen=True)
class AdapterFolder:
    """The content of an adapter folder."""

    config: AdapterConfig
    arrays: dict[str, mx.array]
    initial: dict[str, mx.array]


def read_adapters(folder: Path) -> AdapterFolder:
    """The config, A and B (and m), A₀ and B₀ of an adapter folder.

    Raises:
        ForgeError: it is incomplete, or a file cannot be read.
    """
    try:
        config = AdapterConfig(**json.loads((folder / "config.json").read_text()))
        arrays = load_arrays(folder / "adapters.safetensors")
        initial = load_initial(folder)
    except (OSError, RuntimeError, TypeError, json.JSONDecodeError) as error:
        raise ForgeError(f"{folder}: no usable adapters: {error}", "train the run again") from None
    missing = [
        f"{name}.{leaf}"
        for name in config.modules
        for leaf in ("A", "B", "m")[: 3 if config.dora else 2]
        if f"{name}.{leaf}" not in arrays
    ]
    if missing:
        raise ForgeError(
            f"{folder}: no usable adapters: {missing[0]} is missing", "train the run again"
        )
    return AdapterFolder(config, arrays, initial)


def load_tuned(
    folder: Path, *, arrays: Mapping[str, mx.array] | None = None, reporter: Reporter = SILENT
) -> Loaded:
    """The tuned model from an adapter folder: base weights, residuals and adapters.

    Args:
        arrays: A and B (and m) of another step, in place of the folder's.

    Raises:
        ForgeError: the folder is incomplete or the base cannot be loaded.
    """
    found = read_adapters(folder)
    config = found.config
    loaded = load_to_quantise(config.model, reporter=reporter)
    own, stored = dict(arrays or found.arrays), loaded.stored_as(config.quantiser)
    attach(loaded.model, config, own, found.initial, stored=stored)
    make_ready(loaded)
    if config.residual_sha256 and residual_hash(loaded.model) != config.residual_sha256:
        reporter.warn(
            f"{folder}: the residual differs from the one that was trained "
            "(another machine or MLX version): results may differ slightly"
        )
    for name in config.modules:
        get_module(loaded.model, name).settle()
    return loaded


def attach(
    model: nn.Module,
    config: AdapterConfig,
    arrays: dict[str, mx.array],
    initial: dict[str, mx.array],
    *,
    stored: Mapping[str, nn.Module] | None = None,
) -> None:
    """Put adapters on a dense model and quantise it, in place.

    Args:
        arrays: `<module>.A` and `<module>.B` to start from. With DoRA also `<module>.m`;
            where it is missing it becomes ‖V‖, so that the magnitudes change nothing yet.
        initial: A₀, B₀, taken out of W before it is quantised; empty: nothing is.
        stored: layers that are quantised in the checkpoint already (see `quantise_model`);
            those that lose A₀, B₀ are quantised again.
    """
    for name in config.modules:
        taken = None
        if f"{name}.A" in initial:
            taken = initial[f"{name}.A"], initial[f"{name}.B"]
        pair = arrays[f"{name}.A"], arrays[f"{name}.B"]
        attach_layer(model, config, name, pair, taken, stored=stored or {})
    finish(model, config, arrays, stored=stored)


Pair = tuple[mx.array, mx.array]


def attach_layer(
    model: nn.Module,
    config: AdapterConfig,
    name: str,
    pair: Pair,
    taken: Pair | None,
    *,
    stored: Mapping[str, nn.Module],
) -> None:
    """`attach` for one layer. When it is quantised nothing of its dense weight stays in memory.

    Args:
        pair: A and B. taken: A₀ and B₀ (None: nothing is taken out of W).
    """
    dtype, scale = compute_dtype(), config.scale_of(name)
    layer = get_module(model, name)
    if taken:
        layer.weight = without_start(layer.weight, *taken, scale)
        mx.eval(layer.weight)
    kept = None if taken else stored.get(name)
    base = quantise_layer(layer, **config.quantiser, stored=kept)
    A, B = (array.astype(dtype) for array in pair)
    set_module(model, name, LoRALinear(base, A, B, scale))


def finish(
    model: nn.Module,
    config: AdapterConfig,
    arrays: Mapping[str, mx.array],
    *,
    stored: Mapping[str, nn.Module] | None = None,
) -> None:
    """Quantise the layers without adapters, and leave A, B (and m) alone to be trained."""
    quantise_model(model, **config.quantiser, stored=stored, done=set(config.modules))
    model.freeze()
    for name in config.modules:
        layer = get_module(model, name)
        if config.dora:
            # Not in bfloat16: a learning rate's step would be less than its last bit.
            m = arrays.get(f"{name}.m")
            layer.m = row_norms(layer) if m is None else m.astype(mx.float32)
        layer.unfreeze(keys=["A", "B", "m"], recurse=False)
    mx.eval(model.parameters())


__all__ = [
    "AdapterConfig", "AdapterFolder", "LoRALinear", "Pair", "adapter_arrays", "attach",
    "attach_layer", "finish", "get_module", "load_arrays", "load_base", "load_initial",
    "load_tuned", "lora_scale", "read_adapters", "residual_hash", "save_adapters",
    "save_arrays", "set_module", "target_modules",
]  # fmt: skip
