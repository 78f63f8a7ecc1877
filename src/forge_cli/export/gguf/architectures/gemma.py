"""Gemma 2 and 3, text only. Source: llama.cpp `conversion/gemma.py`, `src/models/gemma*.cpp`.

The weights of norms are kept as their distance from 1, which llama.cpp wants added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.architectures.family import (
    PLAIN,
    QK_NORMS,
    Architecture,
    need,
    only,
)

_NORMS = ("pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight")
_LARGEST = {46: "Gemma 2 27B", 62: "Gemma 3 27B"}  # layers by which llama.cpp knows them


def _scale(config: Mapping[str, Any], layers: int, family: str) -> None:
    """llama.cpp scales scores by the size of a head, but for the largest model by another."""
    heads, size = need(config, "num_attention_heads"), need(config, "head_dim")
    wanted = size
    if layers in _LARGEST and layers == need(config, "num_hidden_layers"):
        wanted = need(config, "hidden_size") // heads
    only(config, "query_pre_attn_scalar", wanted, family)


def _gemma2(writer: Any, config: Mapping[str, Any]) -> None:
    _scale(config, 46, "gemma2")
    writer.add_attn_logit_softcapping(need(config, "attn_logit_softcapping"))
    writer.add_final_logit_softcapping(need(config, "final_logit_softcapping"))
    writer.add_sliding_window(need(config, "sliding_window"))


def _gemma3(writer: Any, config: Mapping[str, Any]) -> None:
    _scale(config, 62, "gemma3_text")
    only(config, "sliding_window_pattern", 6, "gemma3_text")
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.get(key):
            raise ForgeError(
                f"gemma3_text with {key} cannot be exported to GGUF yet", "supported: without"
            )
    writer.add_sliding_window(need(config, "sliding_window"))
    nested = (config.get("rope_parameters") or {}).get("sliding_attention") or {}
    local = config.get("rope_local_base_freq") or nested.get("rope_theta") or 10000.0
    writer.add_rope_freq_base_swa(float(local))


GEMMA2 = Architecture(
    "gemma2",
    block=PLAIN + _NORMS,
    rope_theta=10000.0,
    rope=("default",),
    activation="gelu_pytorch_tanh",
    norm_shift=1.0,
    defaults=(
        ("head_dim", 256),
        ("attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", 30.0),
        ("query_pre_attn_scalar", 144.0),
        ("sliding_window", 4096),
        ("tie_word_embeddings", True),
    ),
    describe=_gemma2,
)

GEMMA3 = Architecture(
    "gemma3",
    block=PLAIN + _NORMS + QK_NORMS,
    rope_theta=1e6,
    rope=("default", "linear"),
    activation="gelu_pytorch_tanh",
    norm_shift=1.0,
    defaults=(
        ("num_attention_heads", 4),
        ("num_key_value_heads", 1),
        ("head_dim", 256),
        ("rms_norm_eps", 1e-6),
        ("query_pre_attn_scalar", 256.0),
        ("sliding_window", 512),
        ("max_position_embeddings", 131072),
        ("tie_word_embeddings", True),
    ),
    describe=_gemma3,
)
