"""Llama 1 to 3, Mistral, SmolLM 1 and 2, Mixtral. Source: llama.cpp `conversion/llama.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge_cli.export.gguf.architectures.family import ATTENTION, NORMS, Architecture, need

LLAMA = Architecture("llama", rotated=True, rope_theta=10000.0)


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
    renamed=(("block_sparse_moe.switch_mlp", "mlp.experts"),),
    describe=_experts,
)
