"""Qwen 2, 2.5 and 3, dense and with experts. Source: llama.cpp `conversion/qwen.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.architectures.family import (
    ATTENTION,
    NORMS,
    PLAIN,
    QK_NORMS,
    QKV_BIASES,
    Architecture,
    need,
)

QWEN2 = Architecture("qwen2", block=PLAIN + QKV_BIASES)
QWEN3 = Architecture("qwen3", block=PLAIN + QK_NORMS)


def _experts(writer: Any, config: Mapping[str, Any]) -> None:
    if config.get("decoder_sparse_step", 1) != 1 or config.get("mlp_only_layers"):
        raise ForgeError(
            "qwen3_moe with dense layers between those of experts cannot be exported to GGUF yet",
            "supported: experts in every layer",
        )
    if not config.get("norm_topk_prob"):
        raise ForgeError(
            "qwen3_moe without norm_topk_prob cannot be exported to GGUF",
            "llama.cpp always weighs the chosen experts to a sum of 1",
        )
    writer.add_expert_count(need(config, "num_experts"))
    writer.add_expert_used_count(need(config, "num_experts_per_tok"))
    writer.add_expert_feed_forward_length(need(config, "moe_intermediate_size"))


QWEN3_MOE = Architecture(
    "qwen3moe",
    block=NORMS
    + ATTENTION
    + QK_NORMS
    + ("mlp.gate.weight",)
    + tuple(f"mlp.switch_mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    renamed=(("mlp.switch_mlp", "mlp.experts"),),
    rope=("default",),
    describe=_experts,
)
