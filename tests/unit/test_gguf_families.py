"""Families whose settings llama.cpp has as constants: others are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf import write_gguf
from tiny_families import LLAMA3, LONG, YARN
from tiny_gguf import as_weights, random_weights, save_tokenizer, tiny_config

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gemma3_text", {"sliding_window_pattern": 4}, "sliding_window_pattern 4"),
    ("gemma3_text", {"query_pre_attn_scalar": 168}, "query_pre_attn_scalar 168"),
    ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ("gemma2", {"query_pre_attn_scalar": 256}, "query_pre_attn_scalar 256"),
    ("gemma2", {"hidden_activation": "gelu"}, "activation gelu cannot"),
    ("qwen3_moe", {"norm_topk_prob": False}, "without norm_topk_prob"),
    ("qwen3_moe", {"mlp_only_layers": [0]}, "dense layers between"),
    ("qwen3", {"partial_rotary_factor": 0.5}, "a partial rotary embedding"),
    ("phi3", {"rope_scaling": LONG}, "long_factor has 12 numbers, the model takes 32"),
    (
        "phi3",
        {"rope_scaling": {**LONG, "attention_factor": 2.0}, "partial_rotary_factor": 0.375},
        "longrope with attention_factor",
    ),
    ("llama", {"rope_scaling": LONG}, "rope scaling longrope cannot be .* in a llama model"),
    ("qwen2", {"rope_scaling": LLAMA3}, "rope scaling llama3 cannot be .* in a qwen2 model"),
    ("qwen3_moe", {"rope_scaling": YARN}, "rope scaling yarn cannot be .* in a qwen3moe model"),
    ("qwen2", {"rope_scaling": {**YARN, "beta_slow": 2.0}}, "yarn with beta_slow 2.0"),
    ("qwen2", {"rope_scaling": {**YARN, "attention_factor": 1.5}}, "yarn with attention_factor"),
    ("smollm3", {"no_rope_layers": [1, 0, 1]}, r"no_rope_layers \[1, 0, 1\]"),
    ("smollm3", {"no_rope_layer_interval": 2}, "no_rope_layer_interval 2"),
    (
        "mistral",
        {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 64},
        "sliding_attention layers",
    ),
]


def write(folder: Path, kind: str, **changes: Any) -> Path:
    config = tiny_config(kind, save_tokenizer(folder, "gpt-2"), **changes)
    return write_gguf(
        folder / "out.gguf", config=config, tokenizer_dir=folder, quant="f16", name="tiny",
        weights=as_weights(random_weights(config)),
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "said"), REFUSED)
def test_what_llama_cpp_cannot_do_is_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ForgeError, match=said):
        write(tmp_path, kind, **changes)
    assert not (tmp_path / "out.gguf").exists()


def fields(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}


def test_experts_are_counted_and_their_gate_is_not_quantised(tmp_path: Path) -> None:
    file = write(tmp_path, "qwen3_moe")
    found = fields(file)
    names = ("expert_count", "expert_used_count", "expert_feed_forward_length")
    assert [found[f"qwen3moe.{name}"] for name in names] == [4, 2, 256]
    tensors = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    assert tensors["blk.0.ffn_gate_inp.weight"].tensor_type.name == "F32"
    assert tensors["blk.0.ffn_down_exps.weight"].shape.tolist() == [256, 256, 4]


def test_what_a_config_leaves_out_is_what_its_family_means(tmp_path: Path) -> None:
    found = fields(write(tmp_path, "gemma2", attn_logit_softcapping=None, sliding_window=None))
    assert found["gemma2.attn_logit_softcapping"] == 50.0
    assert found["gemma2.attention.sliding_window"] == 4096
