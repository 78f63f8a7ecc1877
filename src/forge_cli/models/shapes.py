"""A model's shapes from its config.json: what it weighs, without loading it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Settings that mean parts which are not counted here: experts, recurrent or latent layers.
_OTHER = (
    "num_experts", "num_local_experts", "n_routed_experts", "ssm_cfg", "kv_lora_rank", "state_size",
    "ssm_state_size", "mamba_d_state", "linear_num_key_heads", "conv_L_cache", "lru_width",
)  # fmt: skip


@dataclass(frozen=True)
class Shapes:
    """A decoder of attention and gated-MLP blocks (Llama, Qwen 2 and 3, Mistral, Gemma types).

    Attributes:
        layers: blocks. hidden: D. intermediate: of the MLP. vocabulary: V.
        heads, kv_heads, head_dim: of the attention.
        tied: whether lm_head is the embedding.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """[out, in] of the linear layers of a block, by path within it."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        D, F = self.hidden, self.intermediate
        return {
            "self_attn.q_proj": (q, D), "self_attn.k_proj": (kv, D), "self_attn.v_proj": (kv, D),
            "self_attn.o_proj": (D, q), "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D),
            "mlp.down_proj": (D, F),
        }  # fmt: skip

    @property
    def names(self) -> list[str]:
        """Paths of all linear layers, as `models.targets` sees them."""
        blocks = [f"model.layers.{i}.{name}" for i in range(self.layers) for name in self.linears]
        return blocks if self.tied else [*blocks, "lm_head"]

    def shape(self, path: str) -> tuple[int, int]:
        """[out, in] of the linear layer at `path`."""
        if path == "lm_head":
            return (self.vocabulary, self.hidden)
        return self.linears[".".join(path.split(".")[-2:])]

    @property
    def parameters(self) -> int:
        """Weights of linear layers and embeddings; norms and biases are next to nothing."""
        block = sum(out * into for out, into in self.linears.values())
        return self.layers * block + (1 if self.tied else 2) * self.vocabulary * self.hidden


def shapes_of(config: Mapping[str, Any]) -> Shapes | None:
    """The shapes in a config.json; None where it is of a kind that is not counted here.

    A model of text and images has its text part under text_config.
    """
    text = {**config, **(config.get("text_config") or {})}
    if any(text.get(key) for key in _OTHER):
        return None
    try:
        heads, hidden = int(text["num_attention_heads"]), int(text["hidden_size"])
        return Shapes(
            layers=int(text["num_hidden_layers"]),
            hidden=hidden,
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=int(text.get("head_dim") or hidden // heads),
            intermediate=int(text["intermediate_size"]),
            vocabulary=int(text["vocab_size"]),
            tied=bool(text.get("tie_word_embeddings", "gemma" in str(text.get("model_type")))),
        )
    except (KeyError, TypeError, ValueError):
        return None


def read_shapes(folder: Path) -> Shapes | None:
    """The shapes of the model in `folder`; None as in `shapes_of`, or without a config.json."""
    try:
        return shapes_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError):
        return None
