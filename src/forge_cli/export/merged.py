"""The trained function merged into plain weights: as published, or quantised for mlx-lm."""

from __future__ import annotations

import json
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import write_json
from forge_cli.export.gguf import Weight
from forge_cli.export.merge import merged_weights
from forge_cli.models.adapters import save_arrays
from forge_cli.models.backend import mx
from forge_cli.models.load import Loaded
from forge_cli.models.lora import LoRALinear
from forge_cli.models.quantise import Quantiser

_SHARD = 4 << 30
DTYPES = {"bfloat16": mx.bfloat16, "float16": mx.float16, "float32": mx.float32}
_STORED = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
# What mlx-lm stacks, as transformers names it expert by expert.
_EXPERTS = {
    "qwen3_moe": ("mlp.switch_mlp", "mlp.experts", {}),
    "mixtral": (
        "block_sparse_moe.switch_mlp",
        "block_sparse_moe.experts",
        {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"},
    ),
}
_TOKENIZER = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "chat_template*", "generation_config.json",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """What one weight becomes in the file: one array, three of a quantised one, or an expert's.

    Attributes:
        size: in bytes. read: the arrays by name, computed when they are written.
    """

    size: int
    read: Callable[[], dict[str, mx.array]]


def published_dtype(loaded: Loaded) -> str:
    """The float type that the base was published in: bfloat16, float16 or float32.

    By its config; else what most of its stored weights have; else bfloat16.
    """
    told = loaded.config | (loaded.config.get("text_config") or {})
    for key in ("dtype", "torch_dtype"):
        if told.get(key) in DTYPES:
            return str(told[key])
    counts = Counter(kind for kind, _ in stored_weights(loaded.path).values())
    found = [_STORED[kind] for kind, _ in counts.most_common() if kind in _STORED]
    return found[0] if found else "bfloat16"


def stored_weights(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name → type and shape of the weights in a model's directory, from the files' heads.

    Source: https://huggingface.co/docs/safetensors (8 bytes of length, then JSON).
    """
    found = {}
    for file in sorted(folder.glob("model*.safetensors")):  # as mlx-lm takes them
        with open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            head = json.loads(stream.read(length))
        for name, entry in head.items():
            if name != "__metadata__":
                found[name] = (entry["dtype"], tuple(entry["shape"]))
    return found


def write_safetensors(folder: Path, loaded: Loaded, dtype: str) -> None:
    """Weights by the names and in the shapes of the base's checkpoint, for transformers.

    Raises:
        ForgeError: mlx-lm holds this architecture's weights in another form.
    """
    experts = _EXPERTS.get(loaded.config.get("model_type", ""))
    parts: list[Part] = []
    shapes: dict[str, tuple[int, ...]] = {}
    for name, weight in merged_weights(loaded.model).items():
        if experts and experts[0] in name:
            one = weight.shape[1:]
            names = _expert_names(name, weight.shape[0], *experts)
            parts.append(_plain(weight, dtype, partial(_split, names)))
        else:
            names, one = [name], weight.shape
            parts.append(_plain(weight, dtype, partial(_single, name)))
        shapes |= dict.fromkeys(names, one)
    _check_names(loaded, shapes)
    _save(folder, loaded, parts, "pt", _dtype(dtype))


def write_mlx(folder: Path, loaded: Loaded, dtype: str, how: Quantiser, report: Reporter) -> None:
    """Weights as mlx-lm has them, its linear layers and embeddings quantised (bits 16: not).

    As `mlx_lm.convert` quantises: what a model says of its own layers holds (a router of experts
    in 8 bits), and a layer whose rows do not fill groups stays as it is. Scales are in `dtype`.
    """
    told: dict[str, Any] = dict(how)
    plans = _plans(loaded, how) if how["bits"] != 16 else {}
    told |= {path: plan for path, plan in plans.items() if plan not in (how, None)}
    left = sum(plan is None for plan in plans.values())
    if left:
        report.note(
            f"{left} of {len(plans)} layers stay {dtype}: their rows do not fill groups of "
            f"{how['group_size']}"
        )
    parts = []
    for name, weight in merged_weights(loaded.model).items():
        plan = plans.get(name.removesuffix(".weight"))
        if plan is not None and name.endswith(".weight"):
            parts.append(_packed(name, weight, dtype, plan))
        else:
            parts.append(_plain(weight, dtype, partial(_single, name)))
    config: dict[str, Any] = _dtype(dtype)
    if plans:
        config |= {"quantization": told, "quantization_config": told}
    _save(folder, loaded, parts, "mlx", config)


def _plans(loaded: Loaded, how: Quantiser) -> dict[str, Quantiser | None]:
    """How each layer that can be quantised is; None: not at all."""
    own = getattr(loaded.model, "quant_predicate", None)
    plans: dict[str, Quantiser | None] = {}
    for name, module in loaded.model.named_modules():
        path = name.removesuffix(".base")
        layer = module.base if isinstance(module, LoRALinear) else module
        # A layer that is packed already has no `to_quantized`.
        if path in plans or not (hasattr(layer, "to_quantized") or "scales" in layer):
            continue
        wanted = own(path, layer) if own else True
        plan = cast(Quantiser, {**how, **wanted}) if isinstance(wanted, dict) else how
        columns = layer.weight.shape[-1]
        if "scales" in layer:
            columns = columns * 32 // layer.bits
        fits = columns % how["group_size"] == 0 and columns % plan["group_size"] == 0
        plans[path] = plan if wanted and fits else None
    return plans


def _packed(name: str, weight: Weight, dtype: str, how: Quantiser) -> Part:
    path = name.removesuffix(".weight")

    def read() -> dict[str, mx.array]:
        # From float32, so that a weight is rounded once; the scales are rounded to `dtype`.
        arrays = mx.quantize(mx.array(weight.read()), **how)
        names = (name, f"{path}.scales", f"{path}.biases")
        kept = {key: value for key, value in zip(names, arrays, strict=False)}
        return {k: v if k == name else v.astype(DTYPES[dtype]) for k, v in kept.items()}

    count = _count(weight.shape)
    groups = count // how["group_size"]
    return Part(count * how["bits"] // 8 + 2 * groups * DTYPES[dtype].size, read)


def _plain(weight: Weight, dtype: str, named: Callable[[mx.array], dict[str, mx.array]]) -> Part:
    def read() -> dict[str, mx.array]:
        return named(mx.array(weight.read()).astype(DTYPES[dtype]))

    return Part(_count(weight.shape) * DTYPES[dtype].size, read)


def _single(name: str, array: mx.array) -> dict[str, mx.array]:
    return {name: array}


def _split(names: Sequence[str], array: mx.array) -> dict[str, mx.array]:
    return {name: array[number] for number, name in enumerate(names)}


def _expert_names(
    name: str, count: int, ours: str, theirs: str, leaves: Mapping[str, str]
) -> list[str]:
    before, _, after = name.partition(f"{ours}.")
    leaf, _, rest = after.partition(".")
    return [f"{before}{theirs}.{n}.{leaves.get(leaf, leaf)}.{rest}" for n in range(count)]


def _check_names(loaded: Loaded, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A name that transformers does not know would be a layer of random numbers."""
    wanted = {name: shape for name, (_, shape) in stored_weights(loaded.path).items()}
    tied = loaded.config.get("tie_word_embeddings")
    wrong = [name for name in shapes if "switch_mlp" in name]
    if not loaded.config.get("quantization"):
        spare = [n for n in wanted if n.endswith("inv_freq") or (tied and n == "lm_head.weight")]
        for name in spare:
            wanted.pop(name)
        wrong += [n for n in wanted.keys() | shapes.keys() if wanted.get(n) != shapes.get(n)]
    if wrong:
        raise ForgeError(
            f"{loaded.name}: mlx-lm holds {min(wrong)} in another form than the checkpoint does",
            "export this model --to gguf or --to mlx",
        )


def _save(
    folder: Path, loaded: Loaded, parts: Sequence[Part], form: str, told: Mapping[str, Any]
) -> None:
    """The config, the tokenizer, and the weights, some gigabytes a file."""
    write_json(folder / "config.json", base_config(loaded) | dict(told))
    copy_tokenizer(loaded.path, folder)
    shards = list(_shards(parts))
    index: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        if len(shards) == 1:
            file = "model.safetensors"
        arrays = {name: array for part in shard for name, array in part.read().items()}
        save_arrays(folder / file, arrays, {"format": form})
        index |= dict.fromkeys(arrays, file)
        total += sum(array.nbytes for array in arrays.values())
    if len(shards) > 1:
        head = {"metadata": {"total_size": total}, "weight_map": index}
        write_json(folder / "model.safetensors.index.json", head)


def _shards(parts: Sequence[Part]) -> Iterator[list[Part]]:
    shard: list[Part] = []
    for part in parts:
        if shard and sum(one.size for one in shard) + part.size > _SHARD:
            yield shard
            shard = []
        shard.append(part)
    yield shard


def base_config(loaded: Loaded) -> dict[str, Any]:
    """The base's config.json, less how it was quantised."""
    told = json.loads((loaded.path / "config.json").read_text(encoding="utf-8"))
    return {k: v for k, v in told.items() if not k.startswith("quantization")}


def copy_tokenizer(source: Path, target: Path) -> None:
    """The tokenizer's files, the chat template and how to generate."""
    for pattern in _TOKENIZER:
        for file in source.glob(pattern):
            shutil.copyfile(file, target / file.name)


def _dtype(name: str) -> dict[str, Any]:
    return {"torch_dtype": name, "dtype": name}


def _count(shape: Sequence[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


__all__ = [
    "DTYPES", "base_config", "copy_tokenizer", "published_dtype", "stored_weights", "write_mlx",
    "write_safetensors",
]  # fmt: skip
