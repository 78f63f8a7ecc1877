"""Low-rank adapters on linear layers, how they are stored, and the tuned model they make.

A layer computes  y = x·deq(W_res)ᵀ + s·(x·Aᵀ)·Bᵀ  with A [r, in], B [out, r], s = alpha/r.
PiSSA starts from W = W_res + s·B₀A₀, so W_res is made again from the base weights and the
stored A₀, B₀; LoRA starts from B₀ = 0, so W_res = W and nothing is stored.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import atomic_file, write_json
from forge_cli.models.backend import compute_dtype, mx, nn
from forge_cli.models.load import Loaded, load_base, load_dense
from forge_cli.models.quantise import dense_weight, quantise_model


@dataclass(frozen=True)
class AdapterConfig:
    """What is needed, besides the arrays, to make the tuned model again."""

    model: str
    init: str
    rank: int
    alpha: float
    bits: int
    group_size: int
    modules: list[str]
    residual_sha256: str = ""

    @property
    def scale(self) -> float:
        """s = alpha / r."""
        return self.alpha / self.rank


class LoRALinear(nn.Module):
    """A frozen linear layer with a trained low-rank update.

    Args:
        base: the residual, quantised or not, with its bias.
        A: [r, in]. B: [out, r]. scale: s = alpha/r.
    """

    def __init__(self, base: nn.Module, A: mx.array, B: mx.array, scale: float) -> None:
        super().__init__()
        self.base = base
        self.A = A
        self.B = B
        self.scale = scale

    def __call__(self, x: mx.array) -> mx.array:
        """[…, in] → […, out], in the dtype of x."""
        return self.base(x) + self.scale * ((x @ self.A.T) @ self.B.T)

    def merged(self) -> mx.array:
        """deq(W_res) + s·B·A, float32 [out, in]: the function that was trained."""
        update = self.B.astype(mx.float32) @ self.A.astype(mx.float32)
        return dense_weight(self.base) + self.scale * update


def target_modules(model: nn.Module, targets: list[str], layers: int) -> list[str]:
    """Paths of the linear layers named in `targets`, in the last `layers` blocks (0: all).

    Raises:
        UsageError: no layer matches.
    """
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in targets
    ]
    count = len(model.layers)
    chosen = [name for name in linear if not layers or _block(name) >= count - layers]
    if not chosen:
        raise UsageError(
            f"targets {', '.join(targets)}: no linear layer of this model has such a name",
            "name layers such as q_proj, v_proj, up_proj",
        )
    return sorted(chosen, key=lambda name: (_block(name), name))


def _block(path: str) -> int:
    return next((int(part) for part in path.split(".") if part.isdigit()), -1)


def get_module(model: nn.Module, path: str) -> Any:
    """The submodule at a dotted path."""
    for part in path.split("."):
        model = model[int(part)] if isinstance(model, list) else getattr(model, part)
    return model


def set_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` at a dotted path."""
    parent, _, leaf = path.rpartition(".")
    setattr(get_module(model, parent) if parent else model, leaf, module)


def adapter_arrays(model: nn.Module) -> dict[str, mx.array]:
    """The trained arrays by name, `<module>.A` and `<module>.B`."""
    return {
        f"{name}.{leaf}": module[leaf]
        for name, module in model.named_modules()
        if isinstance(module, LoRALinear)
        for leaf in ("A", "B")
    }


def residual_hash(model: nn.Module) -> str:
    """SHA-256 over the residuals' bytes: tells whether they were made again exactly."""
    digest = hashlib.sha256()
    for _, module in sorted(model.named_modules()):
        if isinstance(module, LoRALinear):
            weight = module.base.weight
            digest.update(bytes(memoryview(weight.view(mx.uint8))))
    return digest.hexdigest()


def save_adapters(
    folder: Path, config: AdapterConfig, arrays: dict[str, mx.array], initial: dict[str, mx.array]
) -> None:
    """Write config.json, adapters.safetensors (A, B) and, if any, initial.safetensors (A₀, B₀)."""
    folder.mkdir(parents=True, exist_ok=True)
    if initial:
        save_arrays(folder / "initial.safetensors", initial)
    else:  # what another run left here would be taken out of the weights
        (folder / "initial.safetensors").unlink(missing_ok=True)
    save_arrays(folder / "adapters.safetensors", arrays)
    write_json(folder / "config.json", asdict(config))


def save_arrays(path: Path, arrays: dict[str, mx.array]) -> None:
    """Write a safetensors file, atomically."""
    with atomic_file(path) as stream:
        mx.save_safetensors(cast(BinaryIO, stream), arrays)


def load_arrays(path: Path) -> dict[str, mx.array]:
    """Read a safetensors file."""
    return cast(dict[str, mx.array], mx.load(str(path)))


def load_initial(folder: Path) -> dict[str, mx.array]:
    """A₀, B₀ of an adapter folder; empty where B₀ = 0, or there is no such folder."""
    file = folder / "initial.safetensors"
    return load_arrays(file) if file.exists() else {}


def load_tuned(folder: Path, *, reporter: Reporter = SILENT) -> Loaded:
    """The tuned model from an adapter folder: base weights, residuals and adapters.

    Raises:
        ForgeError: the folder is incomplete or the base cannot be loaded.
    """
    try:
        config = AdapterConfig(**json.loads((folder / "config.json").read_text()))
        arrays = load_arrays(folder / "adapters.safetensors")
        initial = load_initial(folder)
    except (OSError, RuntimeError, TypeError, json.JSONDecodeError) as error:
        raise ForgeError(f"{folder}: no usable adapters: {error}", "train the run again") from None
    loaded = load_dense(config.model, reporter=reporter)
    attach(loaded.model, config, arrays, initial)
    if config.residual_sha256 and residual_hash(loaded.model) != config.residual_sha256:
        reporter.warn(
            f"{folder}: the residual differs from the one that was trained "
            "(another machine or MLX version): results may differ slightly"
        )
    return loaded


def attach(
    model: nn.Module,
    config: AdapterConfig,
    arrays: dict[str, mx.array],
    initial: dict[str, mx.array],
) -> None:
    """Put adapters on a dense model and quantise it, in place.

    Args:
        arrays: `<module>.A` and `<module>.B` to start from.
        initial: A₀, B₀ of the same shapes, subtracted from W before it is quantised;
            empty when B₀ = 0.
    """
    dtype = compute_dtype()
    for name in config.modules:
        layer = get_module(model, name)
        if initial:
            principal = initial[f"{name}.B"] @ initial[f"{name}.A"]
            weight = layer.weight.astype(mx.float32) - config.scale * principal
            layer.weight = weight.astype(layer.weight.dtype)
            mx.eval(layer.weight)
        A, B = (arrays[f"{name}.{leaf}"].astype(dtype) for leaf in ("A", "B"))
        set_module(model, name, LoRALinear(layer, A, B, config.scale))
    quantise_model(model, bits=config.bits, group_size=config.group_size)
    model.freeze()
    for name in config.modules:
        get_module(model, name).unfreeze(keys=["A", "B"], recurse=False)
    mx.eval(model.parameters())


__all__ = [
    "AdapterConfig", "LoRALinear", "adapter_arrays", "attach", "get_module", "load_base",
    "load_tuned", "residual_hash", "save_adapters", "save_arrays", "set_module", "target_modules",
]  # fmt: skip
