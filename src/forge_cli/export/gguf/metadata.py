"""A model's dimensions as GGUF metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.architectures import Architecture, need
from forge_cli.export.gguf.rope import add_rope, rotary_dimensions


def complete(config: Mapping[str, Any], arch: Architecture) -> dict[str, Any]:
    """config.json with what its family means by keys that are not there."""
    return dict(arch.defaults) | {key: value for key, value in config.items() if value is not None}


def head_dim_of(config: Mapping[str, Any]) -> int:
    """Numbers in a query, key or value of one head."""
    heads = need(config, "num_attention_heads")
    return int(config.get("head_dim") or need(config, "hidden_size") // heads)


def add_architecture(writer: Any, arch: Architecture, config: Mapping[str, Any]) -> None:
    """Write a model's dimensions as GGUF metadata.

    Args:
        writer: gguf.GGUFWriter.
        config: a `complete` one.

    Raises:
        ForgeError: config.json lacks a value, or asks for what llama.cpp cannot do.
    """
    heads, head_dim = need(config, "num_attention_heads"), head_dim_of(config)
    activation = config.get("hidden_activation") or config.get("hidden_act") or arch.activation
    if activation != arch.activation:
        raise ForgeError(
            f"activation {activation} cannot be exported to GGUF",
            f"supported: {arch.activation}",
        )
    writer.add_block_count(need(config, "num_hidden_layers"))
    writer.add_context_length(need(config, "max_position_embeddings"))
    writer.add_embedding_length(need(config, "hidden_size"))
    writer.add_feed_forward_length(need(config, "intermediate_size"))
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(need(config, "rms_norm_eps"))
    writer.add_vocab_size(need(config, "vocab_size"))
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    rotary = rotary_dimensions(config, head_dim)
    if arch.rotated or arch.partly_rotary:
        writer.add_rope_dimension_count(rotary)
    elif rotary != head_dim:
        raise ForgeError(
            "a partial rotary embedding cannot be exported to GGUF yet", "supported: all of a head"
        )
    add_rope(writer, arch, config)
    arch.describe(writer, config)
