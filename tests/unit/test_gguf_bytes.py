"""Our quantised tensors against llama.cpp's own quantiser, byte for byte."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from forge_cli.export.gguf import ARCHITECTURES, QUANTS, Importance, write_gguf
from forge_cli.export.gguf.encode import encode
from forge_cli.export.gguf.metadata import complete
from forge_cli.export.gguf.names import map_names
from forge_cli.models import ggml
from forge_cli.models.llamacpp_quantise import quantise
from tiny_gguf import as_weights, random_weights, save_tokenizer, tiny_config

SHAPES: dict[str, dict[str, Any]] = {
    "rows of 256": {"num_hidden_layers": 9},
    "rows of 576, tied": {
        "hidden_size": 576,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "rows of 96": {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 3},
    "8 experts": {"num_local_experts": 8, "num_hidden_layers": 9, "intermediate_size": 256},
    "one query a value": {"num_hidden_layers": 4, "num_key_value_heads": 4},
    "80 layers": {
        "num_hidden_layers": 80,
        "intermediate_size": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
    },
}


# Every type for Llama in two shapes; of the other shapes and families what is otherwise there.
TYPES = [quant for quant in QUANTS if quant != "f32"]
SOME = ("q4_k_m", "q3_k_m", "iq4_xs")
CASES = [
    ("llama", shape, quant) for shape in ("rows of 256", "rows of 576, tied") for quant in TYPES
]
CASES += [("llama", shape, q) for shape in ("rows of 96", "one query a value") for q in SOME]
CASES += [("llama", "80 layers", quant) for quant in ("q4_k_m", "q3_k_s", "q4_k_s")]
CASES += [(kind, "rows of 256", "q4_k_m") for kind in ("qwen2", "qwen3", "gemma2", "gemma3_text")]
CASES += [("qwen2", "80 layers", "q3_k_s")]
CASES += [("phi3", "rows of 256", quant) for quant in ("q3_k_m", "q4_k_m", "q5_k_m")]
CASES += [
    (kind, shape, quant)
    for kind, shape in (("mixtral", "8 experts"), ("qwen3_moe", "rows of 256"))
    for quant in ("q4_k_m", "q3_k_s", "q5_k_s", "iq4_nl", "mxfp4")
]

CODED = [
    "F16",
    "BF16",
    "Q8_0",
    "Q5_0",
    "Q5_1",
    "Q4_0",
    "Q4_1",
    "IQ4_NL",
    "MXFP4",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ4_XS",
]


# As many types as there are ways to weigh errors; experts have a row of weights each.
WEIGHED = [("llama", "rows of 256", quant) for quant in ("q4_k_m", "q3_k_m", "iq4_xs", "q4_0")]
WEIGHED += [("llama", "rows of 576, tied", "q5_k_m"), ("qwen3_moe", "rows of 256", "q4_k_m")]


@pytest.mark.parametrize(("model_type", "shape", "quant"), CASES)
def test_same_bytes_as_llama_cpp(tmp_path: Path, model_type: str, shape: str, quant: str) -> None:
    ours, theirs = both(tmp_path, model_type, shape, quant)
    assert_equal(ours, theirs)


@pytest.mark.parametrize(("model_type", "shape", "quant"), WEIGHED)
def test_same_bytes_by_the_same_importance(
    tmp_path: Path, model_type: str, shape: str, quant: str
) -> None:
    ours, theirs = both(tmp_path, model_type, shape, quant, weighed=True)
    assert_equal(ours, theirs)
    told = {k: ours.fields[k].contents() for k in ours.fields if k.startswith("quantize.imatrix")}
    assert told == {
        "quantize.imatrix.dataset": "texts",
        "quantize.imatrix.chunks_count": 7,
        "quantize.imatrix.entries_count": len(means_of(ours)),
    }
    name = "blk.1.attn_q.weight"
    [values], [coded] = (
        [t for t in reader.tensors if t.name == name]
        for reader in (GGUFReader(tmp_path / "f32.gguf"), ours)
    )
    with ThreadPoolExecutor(2) as threads:
        plain = encode(values.data, coded.tensor_type.name, name, threads)
    assert not np.array_equal(plain, coded.data.reshape(plain.shape))


def means_of(reader: GGUFReader) -> dict[str, np.ndarray]:
    """Random weights for the columns of all matrices but the first value's, by GGUF name."""
    rng = np.random.default_rng(1)
    return {
        t.name: rng.exponential(size=[*map(int, t.shape[2:]), int(t.shape[0])]).astype(np.float32)
        for t in reader.tensors
        if len(t.shape) > 1 and t.name != "blk.0.attn_v.weight"
    }


def both(
    folder: Path, model_type: str, shape: str, quant: str, weighed: bool = False
) -> tuple[GGUFReader, GGUFReader]:
    """A file of ours, and llama.cpp's of the same F32 file."""
    tokens = save_tokenizer(folder, "qwen2")
    config = complete(tiny_config(model_type, tokens, **SHAPES[shape]), ARCHITECTURES[model_type])
    weights = as_weights(random_weights(config))
    given = {"config": config, "tokenizer_dir": folder, "weights": weights, "name": "tiny"}
    plain = write_gguf(folder / "f32.gguf", quant="f32", **given)
    means = means_of(GGUFReader(plain)) if weighed else {}
    names = map_names(weights, ARCHITECTURES[model_type], config)
    own = {names[name]: found for name, found in means.items()}
    ours = write_gguf(
        folder / "ours.gguf", quant=quant, **given,
        importance=Importance(own, 7, "texts") if weighed else None,
    )  # fmt: skip
    quantise(plain, folder / "theirs.gguf", QUANTS[quant].file_type, means)
    return GGUFReader(ours), GGUFReader(folder / "theirs.gguf")


def assert_equal(ours: GGUFReader, theirs: GGUFReader) -> None:
    found, wanted = ({t.name: t for t in reader.tensors} for reader in (ours, theirs))
    assert {n: t.tensor_type.name for n, t in found.items()} == {
        n: t.tensor_type.name for n, t in wanted.items()
    }
    for name, tensor in found.items():
        assert list(tensor.shape) == list(wanted[name].shape), name
        assert np.array_equal(tensor.data.view(np.uint8), wanted[name].data.view(np.uint8)), (
            f"{name} ({tensor.tensor_type.name})"
        )


@pytest.mark.parametrize("kind", CODED)
def test_without_llama_cpps_wheel_the_bytes_are_the_same(kind: str) -> None:
    values = np.random.default_rng(0).standard_normal((300, 256), np.float32)
    with ThreadPoolExecutor(2) as threads:
        ours, theirs = (
            encode(values, kind, "a", threads, code=code())
            for code in (ggml.of_libgguf, ggml.of_llama_cpp)
        )
    assert np.array_equal(ours, theirs)


def test_rows_that_fill_no_block_stay_float16(tmp_path: Path) -> None:
    tokens = save_tokenizer(tmp_path, "qwen2")
    config = tiny_config(
        "llama", tokens, hidden_size=80, num_attention_heads=2, num_key_value_heads=2
    )
    weights = as_weights(random_weights(config))
    for quant in ("q8_0", "q4_k_m"):
        out = write_gguf(
            tmp_path / f"{quant}.gguf", config=config, tokenizer_dir=tmp_path,
            weights=weights, quant=quant, name="tiny",
        )  # fmt: skip
        kinds = {t.name: t.tensor_type.name for t in GGUFReader(out).tensors}
        assert kinds["blk.0.attn_q.weight"] == "F16"
        assert kinds["blk.0.ffn_down.weight"] in ("Q8_0", "Q4_K", "Q6_K")
