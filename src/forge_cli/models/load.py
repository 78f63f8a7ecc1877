"""Load a model and its tokenizer, whole, in the dtype of the device."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.models import attention
from forge_cli.models.backend import compute_dtype, device_memory, mx, nn, on_gpu
from forge_cli.models.quantise import Quantiser, dense_weight, is_packed, quantise_model
from forge_cli.models.resolve import BUILT_IN, resolve
from forge_cli.models.shared_context import check_model


@dataclass
class Loaded:
    """A model in memory, with what is needed to render, hash and export it.

    Attributes:
        stored: by path, the layers that the checkpoint has quantised, as they were.
        checked: whether the weights are in memory and the architecture was held to its losses.
    """

    name: str
    path: Path
    model: nn.Module
    tokenizer: Any  # mlx_lm.tokenizer_utils.TokenizerWrapper
    config: dict[str, Any]
    stored: dict[str, nn.Module] = field(default_factory=dict)
    checked: bool = False

    def stored_as(self, quantiser: Quantiser) -> dict[str, nn.Module]:
        """The layers that are quantised already, if it is the way that is asked for."""
        own = {"mode": "affine", **self.config.get("quantization", {})}
        same = all(own.get(name) == value for name, value in quantiser.items())
        return self.stored if same else {}


def load_dense(name: str, *, reporter: Reporter = SILENT) -> Loaded:
    """The unquantised model `name`, weights in the device's compute dtype, frozen.

    Raises:
        UsageError, ForgeError: no such model, an architecture that mlx-lm lacks, or too little
            memory for it.
    """
    _check_memory(resolve(name, reporter=reporter), name)
    loaded = _load_lazy(name, reporter)
    make_ready(loaded, reporter)
    return loaded


def load_to_quantise(name: str, *, reporter: Reporter = SILENT) -> Loaded:
    """The same for a caller who quantises it and then calls `make_ready`.

    On the GPU no weight is read yet: layers are to be quantised one after another, so that the
    dense model, four times as large, never stands in memory. On the CPU it stays dense anyway.
    """
    return _load_lazy(name, reporter) if on_gpu() else load_dense(name, reporter=reporter)


def make_ready(loaded: Loaded, reporter: Reporter = SILENT) -> None:
    """Read all weights, and hold the architecture to its losses, once.

    Raises:
        ForgeError: see `check_model`.
    """
    if not loaded.checked:
        mx.eval(loaded.model.parameters())
        check_model(loaded.model, loaded.name, reporter)
        loaded.checked = True


def _load_lazy(name: str, reporter: Reporter) -> Loaded:
    path = resolve(name, reporter=reporter)
    from mlx_lm.utils import load_model

    attention.install()
    try:
        stored = json.loads((path / "config.json").read_text(encoding="utf-8"))
        model, config = load_model(path, lazy=True, model_config=flat_rope(stored))
    except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ForgeError(f"{path}: cannot load: {reason}", "choose another --model") from None
    packed: dict[str, nn.Module] = {}
    if config.get("quantization"):
        reporter.warn(
            f"{name} is already quantised: init pissa, qpissa and loftq quantise what is left of "
            "it again, which adds error; init lora starts exactly at it. Prefer its 16-bit weights"
        )
        packed = {path: layer for path, layer in model.named_modules() if is_packed(layer)}
        _dequantise(model, packed)
    model.set_dtype(compute_dtype())
    model.freeze()
    model.eval()
    return Loaded(name, path, model, load_tokenizer(path), config, packed)


def flat_rope(config: dict[str, Any]) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` as mlx-lm's models read them, where they are nested.

    Transformers 5 writes both into `rope_parameters`, which most models of mlx-lm pass over:
    they would compute with their default theta. (Nested by layer type it is left to them.)
    """
    nested = config.get("rope_parameters") or {}
    keys = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
    found: dict[str, Any] = {
        key: nested[key] for key in keys if config.get(key) is None and nested.get(key) is not None
    }
    if not config.get("rope_scaling") and nested.get("rope_type", "default") != "default":
        found["rope_scaling"] = {k: v for k, v in nested.items() if k != "rope_theta"}
        found["rope_scaling"].setdefault("type", nested["rope_type"])  # as Phi 3 is read
    return found


def load_base(
    name: str,
    *,
    bits: int,
    group_size: int,
    mode: str = "affine",
    reporter: Reporter = SILENT,
) -> Loaded:
    """The model `name` quantised to `bits`: the base that a tuned model is judged against.

    A checkpoint that is quantised this way already keeps its values.
    """
    loaded = load_to_quantise(name, reporter=reporter)
    how = Quantiser(bits=bits, group_size=group_size, mode=mode)
    quantise_model(loaded.model, **how, stored=loaded.stored_as(how))
    make_ready(loaded, reporter)
    return loaded


def load_tokenizer(path: Path) -> Any:
    """The tokenizer in `path`, as mlx-lm wraps it.

    Raises:
        ForgeError: it cannot be read, or it has no chat template.
    """
    from mlx_lm.utils import load_tokenizer as mlx_load_tokenizer

    quiet = io.StringIO()  # transformers prints advice that is not for Forge's users
    try:
        with redirect_stdout(quiet), redirect_stderr(quiet):
            tokenizer = mlx_load_tokenizer(path)
    except (ValueError, OSError, json.JSONDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ForgeError(
            f"{path}: no usable tokenizer: {reason}", "choose another --model"
        ) from None
    if not tokenizer.chat_template:
        raise ForgeError(f"{path}: the model has no chat template", "choose an instruct model")
    return tokenizer


def fingerprint(path: Path) -> dict[str, str]:
    """SHA-256 of what decides a model's behaviour: weights, tokenizer, template, config."""
    names = ["config.json", "tokenizer.json", "chat_template.jinja", "tokenizer_config.json"]
    names += sorted(file.name for file in path.glob("*.safetensors"))
    found = {}
    for name in names:
        if (path / name).is_file():
            with open(path / name, "rb") as stream:
                found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def _dequantise(model: nn.Module, packed: dict[str, nn.Module]) -> None:
    """Put plain layers for the quantised ones, in place.

    In float32 (mlx-lm's own function rounds to the scales' type), so that the values are
    those that `quantized_matmul` multiplies with.
    """
    from mlx.utils import tree_unflatten
    from mlx_lm.utils import dequantize_model

    plain = []
    for name, layer in packed.items():
        weight = dense_weight(layer)
        if isinstance(layer, nn.QuantizedEmbedding):
            dense: nn.Module = nn.Embedding(*weight.shape)
        else:
            dense = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in layer)
        dense.weight = weight
        if "bias" in layer:
            dense.bias = layer.bias
        plain.append((name, dense))
    model.update_modules(tree_unflatten(plain))
    dequantize_model(model)  # experts, which Forge does not train


def _check_memory(path: Path, name: str) -> None:
    stored = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    # 16-bit on disk; held once in the compute dtype, plus room for one more copy of a layer.
    needed = int(stored / 2 * compute_dtype().size * 1.2)
    if needed > (free := device_memory()):
        raise ForgeError(
            f"{name}: needs about {needed / 1e9:.1f} GB to load, {free / 1e9:.1f} GB are free",
            "close other programs or choose a smaller --model",
        )


def licence_of(name: str) -> str:
    """The licence of a built-in model; "" where Forge does not know it."""
    return BUILT_IN[name].licence if name in BUILT_IN else ""
