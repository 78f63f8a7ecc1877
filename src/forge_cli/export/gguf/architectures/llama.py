"""Llama 1 to 3, Mistral, SmolLM 1 to 3, Mixtral. Source: llama.cpp `conversion/llama.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.architectures.family import (
    ATTENTION,
    NORMS,
    Architecture,
    need,
    only,
)


def _full_attention(writer: Any, config: Mapping[str, Any]) -> None:
    sliding = "sliding_attention" in (config.get("layer_types") or ())
    if sliding and need(config, "sliding_window") < need(config, "max_position_embeddings"):
        raise ForgeError(
            "llama with sliding_attention layers cannot be exported to GGUF",
            "llama.cpp lets all layers of this family see the whole context",
        )


def _smollm3(writer: Any, config: Mapping[str, Any]) -> None:
    """llama.cpp leaves every fourth layer without RoPE."""
    layers = range(need(config, "num_hidden_layers"))
    only(config, "no_rope_layers", [int((i + 1) % 4 != 0) for i in layers], "smollm3")
    if not config.get("no_rope_layers"):
        only(config, "no_rope_layer_interval", 4, "smollm3")
    _full_attention(writer, config)


LLAMA = Architecture(
    "llama",
    rotated=True,
    rope_theta=10000.0,
    rope=("default", "linear", "yarn", "llama3"),
    describe=_full_attention,
)
SMOLLM3 = Architecture("smollm3", rotated=True, describe=_smollm3)


def _experts(writer: Any, config: Mapping[str, Any]) -> None:
    writer.add_expert_count(need(config, "num_local_experts"))
    writer.add_expert_used_count(need(config, "num_experts_per_tok"))


MIXTRAL = Architecture(
    "llama",
    block=NORMS
    + ATTENTION
    + ("block_sparse_moe.gate.weight",)
    + tuple(f"block_sparse_moe.switch_mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    rotated=True,
    rope_theta=1e6,
    rope=("default",),
    renamed=(("block_sparse_moe.switch_mlp", "mlp.experts"),),
    describe=_experts,
)
