"""Phi 3 and 4. Source: llama.cpp `conversion/phi.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge_cli.export.gguf.architectures.family import NORMS, Architecture, need


def _phi3(writer: Any, config: Mapping[str, Any]) -> None:
    # Zero is what tells Phi 4 from Phi 3 for llama.cpp.
    writer.add_sliding_window(config.get("sliding_window") or 0)
    writer.add_rope_scaling_orig_ctx_len(need(config, "original_max_position_embeddings"))


PHI3 = Architecture(
    "phi3",
    block=(
        *NORMS, "self_attn.qkv_proj.weight", "self_attn.o_proj.weight", "mlp.gate_up_proj.weight",
        "mlp.down_proj.weight",
    ),
    rope_theta=10000.0,
    partly_rotary=True,
    rope=("default", "linear", "longrope", "su"),
    defaults=(("original_max_position_embeddings", 4096),),
    describe=_phi3,
)  # fmt: skip
