"""Write a GGUF file tensor by tensor: no torch, no compiler, two tensors in memory at a time."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import atomic_file
from forge_cli.export.gguf.architectures import Architecture, find_architecture, need
from forge_cli.export.gguf.encode import encode, stored_bytes
from forge_cli.export.gguf.header import write_header
from forge_cli.export.gguf.importance import Importance, add_importance
from forge_cli.export.gguf.metadata import add_architecture, complete, head_dim_of
from forge_cli.export.gguf.names import map_names, rotate, rotated_heads
from forge_cli.export.gguf.policy import QUANTS, Shape, tensor_type
from forge_cli.export.gguf.rope import factor_tensors
from forge_cli.export.gguf.stripping import known_name
from forge_cli.export.gguf.tokenizer import Vocabulary, add_vocabulary, read_vocabulary
from forge_cli.models.pretokenizers import UNLIKE


@dataclass(frozen=True)
class Weight:
    """A weight that is read when its turn comes.

    Args:
        shape: [out, in] or [n].
        read: its values, float32 of that shape.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class _Planned:
    """A tensor of the file: its ggml type, the heads to rotate it by (0: none), what is added,
    and what errors are weighed by."""

    name: str
    weight: Weight
    kind: str
    heads: int = 0
    shift: float = 0.0
    importance: np.ndarray | None = None


def write_gguf(
    out: Path,
    *,
    config: Mapping[str, Any],
    tokenizer_dir: Path,
    weights: Mapping[str, Weight],
    quant: str,
    name: str,
    metadata: Mapping[str, str] | None = None,
    importance: Importance | None = None,
    reporter: Reporter = SILENT,
) -> Path:
    """Write a model as one GGUF file, atomically.

    Args:
        config: the model's config.json.
        tokenizer_dir: folder with tokenizer.json and the chat template.
        weights: by checkpoint name (`model.layers.0.self_attn.q_proj.weight` …); each is
            read once, in the order of the file.
        quant: a key of `QUANTS`.
        name: `general.name`, by which llama.cpp knows some tokenizers: see `stripping`.
        importance: what the coder weighs errors by.
        metadata: more keys and texts, such as `general.license` or `forge.run`.

    Returns:
        `out`.

    Raises:
        UsageError: an unknown `quant`. ForgeError: an architecture, rope scaling or
            tokenizer that cannot be written exactly; weights that are missing, unknown or
            not finite; a disk that is full. Nothing is left behind.
    """
    if quant not in QUANTS:
        raise UsageError(f"{quant}: unknown GGUF type", f"known: {', '.join(QUANTS)}")
    arch = find_architecture(config)
    config = complete(config, arch)
    vocabulary = read_vocabulary(tokenizer_dir, config)
    if vocabulary.pre in UNLIKE:
        reporter.warn(
            f"{vocabulary.pre}: llama.cpp cuts {UNLIKE[vocabulary.pre][1]} otherwise than training "
            "did; the rest of a text is not touched"
        )
    planned = _plan(weights, arch, config, vocabulary, quant, importance)
    writer = _describe(planned, arch, config, vocabulary, quant, name)
    for key, text in (metadata or {}).items():
        writer.add_string(key, text)
    if importance:
        add_importance(writer, importance)
    with (
        atomic_file(out) as stream,
        ThreadPoolExecutor(os.cpu_count()) as threads,
        ThreadPoolExecutor(1) as behind,
        reporter.task(f"writing {out.name}", len(planned)) as task,
    ):
        write_header(writer, stream)
        written: Future[None] | None = None
        for tensor in planned:
            data = _code(tensor, threads)
            if written:
                written.result()
            # One tensor is written while the next is coded.
            written = behind.submit(_write, writer, stream, data)
            task.advance(detail=tensor.name)
        if written:
            written.result()
    return out


def _describe(
    planned: list[_Planned],
    arch: Architecture,
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    quant: str,
    name: str,
) -> Any:
    """A gguf.GGUFWriter that knows everything but the tensors' data."""
    from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter, size_label

    writer = GGUFWriter(None, arch.gguf)
    writer.add_type("model")
    writer.add_name(known_name(name, vocabulary.strips_as_phi3))
    add_architecture(writer, arch, config)
    writer.add_file_type(QUANTS[quant].file_type)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    add_vocabulary(writer, vocabulary)
    for tensor in planned:
        shape = tensor.weight.shape
        writer.add_tensor_info(
            tensor.name,
            shape,
            np.dtype(np.float32),  # not looked at: the type is given
            stored_bytes(shape, tensor.kind),
            GGMLQuantizationType[tensor.kind],
        )
    writer.add_size_label(size_label(*writer.get_total_parameter_count()))
    return writer


def _plan(
    weights: Mapping[str, Weight],
    arch: Architecture,
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    quant: str,
    importance: Importance | None,
) -> list[_Planned]:
    names = map_names(weights, arch, config)
    embedding = weights[names["token_embd.weight"]].shape
    if embedding[0] != len(vocabulary.tokens):
        raise ForgeError(
            f"the embedding has {embedding[0]} rows, config.json says {len(vocabulary.tokens)}",
            "take the model's own config.json",
        )
    heads = need(config, "num_attention_heads")
    model = Shape(
        arch.gguf,
        layers=need(config, "num_hidden_layers"),
        tied="output.weight" not in names,
        query_groups=heads // (config.get("num_key_value_heads") or heads),
        experts=int(config.get("num_experts") or config.get("num_local_experts") or 0),
        importance=importance is not None,
    )
    planned = []
    for name, source in names.items():
        weight = weights[source]
        kind = tensor_type(name, weight.shape, quant, model)
        shift = arch.norm_shift if name.endswith("norm.weight") else 0.0
        heads = rotated_heads(name, arch, config)
        means = importance.means.get(source) if importance else None
        planned.append(_Planned(name, weight, kind, heads, shift, means))
    for name, factors in factor_tensors(config, arch, head_dim_of(config)).items():
        weight = Weight(factors.shape, functools.partial(np.asarray, factors))
        planned.insert(1, _Planned(name, weight, "F32"))
    return planned


def _code(tensor: _Planned, threads: ThreadPoolExecutor) -> np.ndarray:
    """The data of a tensor, as it is stored."""
    values = tensor.weight.read()
    if values.shape != tensor.weight.shape:
        raise ForgeError(
            f"tensor {tensor.name} has shape {values.shape}, announced as {tensor.weight.shape}",
            "the model is incomplete: take it again",
        )
    if tensor.heads:
        values = rotate(values, tensor.heads)
    if tensor.shift:
        values = values + np.float32(tensor.shift)
    return encode(values, tensor.kind, tensor.name, threads, importance=tensor.importance)


def _write(writer: Any, stream: IO[bytes], data: np.ndarray) -> None:
    # Not ndarray.tofile: it hides why a write failed, so a full disk would go unnamed.
    stream.write(data.data)
    writer.write_padding(stream, data.nbytes)
