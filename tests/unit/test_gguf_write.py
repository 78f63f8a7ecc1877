"""The file as a whole: metadata as llama.cpp's converter writes it, refusals, atomicity."""

from __future__ import annotations

import functools
import json
import resource
import tracemalloc
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from gguf import GGUFReader, dequantize

from forge_cli.core.config import Quant
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.export.gguf import ARCHITECTURES, QUANTS, Weight, write_gguf
from forge_cli.export.gguf.names import map_names, rotate, rotated_heads
from forge_cli.export.parity import THRESHOLDS
from forge_cli.models.gguf_import import import_gguf, unrotate
from tiny_gguf import (
    as_weights,
    random_weights,
    save_tokenizer,
    smollm2,
    tiny_config,
    weight_shapes,
)

# What our file does not say: it is not the publisher's.
PUBLISHER = {
    "general.basename", "general.finetune", "general.languages", "general.license",
    "general.organization",
}  # fmt: skip
BLOCKS = ("0.", "1.")


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Any]:
    config = tiny_config("llama", save_tokenizer(tmp_path, "smollm"))
    return {
        "config": config,
        "tokenizer_dir": tmp_path,
        "weights": as_weights(random_weights(config)),
        "quant": "f16",
        "name": "tiny",
    }


def values(reader: GGUFReader) -> dict[str, Any]:
    return {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}


def read_back(reader: GGUFReader, config: dict[str, Any]) -> dict[str, Weight]:
    """The checkpoint that a llama GGUF was made from, tensor by tensor."""
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    arch = ARCHITECTURES["llama"]

    def read(name: str) -> np.ndarray:
        value = dequantize(tensors[name].data, tensors[name].tensor_type)
        heads = rotated_heads(name, arch, config)
        return unrotate(value, heads) if heads else value

    shapes = weight_shapes(config)
    return {
        source: Weight(shapes[source], functools.partial(read, name))
        for name, source in map_names(shapes, arch, config).items()
    }


def test_metadata_and_tensors_are_those_of_llama_cpps_converter(tmp_path: Path) -> None:
    source = smollm2()
    folder = import_gguf(source)
    # Two of its blocks: what is said of the others is the same.
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 2}
    reader = GGUFReader(source)
    out = write_gguf(
        tmp_path / "out.gguf", config=config, tokenizer_dir=folder,
        weights=read_back(reader, config), quant="f16", name="SmolLM2",
        metadata={"forge.run": "a run"},
    )  # fmt: skip
    result = GGUFReader(out)
    ours, theirs = values(result), values(reader)
    assert set(theirs) - PUBLISHER <= set(ours)
    changed = {
        "general.name", "general.file_type", "general.size_label", "llama.block_count",
    }  # fmt: skip
    assert {k for k in set(theirs) & set(ours) if theirs[k] != ours[k]} == changed
    shared = set(theirs) & set(ours)
    assert {k: result.fields[k].types for k in shared} == {
        k: reader.fields[k].types for k in shared
    }
    assert ours["forge.run"] == "a run"

    written = {t.name: t for t in result.tensors}
    first = [t for t in reader.tensors if not t.name.startswith("blk.") or t.name[4:6] in BLOCKS]
    assert set(written) == {t.name for t in first}
    for tensor in first:
        found = written[tensor.name]
        assert list(found.shape) == list(tensor.shape)
        value = dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(found.data, value.astype(found.data.dtype)), tensor.name


def test_rotating_rows_is_undone_by_the_reader() -> None:
    rows = np.arange(12 * 3, dtype=np.float32).reshape(12, 3)
    assert not np.array_equal(rotate(rows, 2), rows)
    assert np.array_equal(unrotate(rotate(rows, 2), 2), rows)
    assert rotate(np.arange(8), 1).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize("quant", ["f32", "f16", "q4_k_m"])
def test_memory_holds_at_most_twice_the_largest_tensor(
    tmp_path: Path, model: dict[str, Any], quant: str
) -> None:
    arrays = random_weights(model["config"])
    before: list[int] = []

    def read(name: str) -> np.ndarray:
        if not before:  # the vocabulary and the plan are there, and no tensor
            tracemalloc.reset_peak()
            before.append(tracemalloc.get_traced_memory()[0])
        return arrays[name].copy()

    lazy = {n: Weight(a.shape, lambda n=n: read(n)) for n, a in arrays.items()}
    tracemalloc.start()
    try:
        write_gguf(tmp_path / "out.gguf", **{**model, "weights": lazy, "quant": quant})
        peak = tracemalloc.get_traced_memory()[1] - before[0]
    finally:
        tracemalloc.stop()
    largest = max(array.nbytes for array in arrays.values())
    assert largest < peak < 2 * largest


def with_weight(model: dict[str, Any], name: str, value: np.ndarray) -> dict[str, Any]:
    return {**model, "weights": {**model["weights"], **as_weights({name: value})}}


def without(model: dict[str, Any], name: str) -> dict[str, Any]:
    return {**model, "weights": {k: w for k, w in model["weights"].items() if k != name}}


def with_config(model: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**model, "config": {**model["config"], **changes}}


Q = "model.layers.0.self_attn.q_proj.weight"
REFUSED: dict[str, Any] = {
    "gemma3 cannot be exported.*": lambda m: with_config(m, model_type="gemma3"),
    "q_norm.weight has no place in a llama model": lambda m: with_weight(
        m, "model.layers.0.self_attn.q_norm.weight", np.ones(64, np.float32)
    ),
    r"q_proj.weight is missing \(1 in all\)": lambda m: without(m, Q),
    "lm_head.weight is missing": lambda m: without(m, "lm_head.weight"),
    "attn_q.weight has values that are not finite": lambda m: with_weight(
        m, Q, np.full((256, 256), np.nan, np.float32)
    ),
    "attn_q.weight has 1e.05, too large for float16": lambda m: with_weight(
        m, Q, np.full((256, 256), -1e5, np.float32)
    ),
    "rope scaling dynamic": lambda m: with_config(m, rope_scaling={"type": "dynamic"}),
    "rope scaling llama3 has no low_freq": lambda m: with_config(
        m, rope_parameters={"rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4}
    ),
    "activation gelu": lambda m: with_config(m, hidden_act="gelu"),
    "no rms_norm_eps": lambda m: with_config(m, rms_norm_eps=None),
    "the embedding has": lambda m: with_config(m, vocab_size=m["config"]["vocab_size"] + 1),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_written_exactly_is_refused(
    tmp_path: Path, model: dict[str, Any], said: str
) -> None:
    out = tmp_path / "out" / "model.gguf"
    out.parent.mkdir()
    out.write_bytes(b"before")
    with pytest.raises(ForgeError, match=said):
        write_gguf(out, **REFUSED[said](model))
    assert [f.name for f in out.parent.iterdir()] == ["model.gguf"]
    assert out.read_bytes() == b"before"


def test_every_type_can_be_asked_for_and_has_a_threshold() -> None:
    assert set(get_args(Quant)) - {"auto"} == set(QUANTS) == set(THRESHOLDS)


def test_an_unknown_type_is_a_usage_error(tmp_path: Path, model: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="q9_9: unknown GGUF type"):
        write_gguf(tmp_path / "out.gguf", **{**model, "quant": "q9_9"})


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, model: dict[str, Any]) -> None:
    out = tmp_path / "out" / "model.gguf"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(ForgeError, match="cannot write"):
            write_gguf(out, **model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(out.parent.iterdir()) == []
