"""What llama.cpp wants to know of a model family, and how its weights must lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from forge_cli.core.errors import ForgeError

# Weights of a block that nearly all families have, as named in Hugging Face checkpoints.
ATTENTION = tuple(f"self_attn.{part}_proj.weight" for part in "qkvo")
MLP = tuple(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down"))
NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")
QKV_BIASES = tuple(f"self_attn.{part}_proj.bias" for part in "qkv")
QK_NORMS = tuple(f"self_attn.{part}_norm.weight" for part in "qk")
PLAIN = NORMS + ATTENTION + MLP


def nothing(writer: Any, config: Mapping[str, Any]) -> None:
    """No metadata of its own."""


@dataclass(frozen=True)
class Architecture:
    """One model family.

    Attributes:
        gguf: `general.architecture`.
        block: weights that every block has, by their names in Hugging Face checkpoints.
        rotated: llama.cpp applies RoPE to neighbouring rows, so the rows of q and k are
            reordered from halves to pairs.
        rope_theta: what a config without `rope_theta` means; None: it must have one.
        activation: of the feed-forward part, as config.json calls it.
        norm_shift: added to the weights of norms, where the model's own code adds it.
        renamed: part of a name in MLX → what the table of names in `gguf` knows.
        defaults: what a config that lacks these keys means.
        partly_rotary: llama.cpp can leave a part of a head unrotated.
        rope: kinds of RoPE scaling that llama.cpp and mlx-lm compute alike.
        describe: writes metadata beyond what all families have (writer, config).
    """

    gguf: str
    block: tuple[str, ...] = PLAIN
    rotated: bool = False
    rope_theta: float | None = None
    activation: str = "silu"
    norm_shift: float = 0.0
    renamed: tuple[tuple[str, str], ...] = ()
    defaults: tuple[tuple[str, Any], ...] = ()
    partly_rotary: bool = False
    rope: tuple[str, ...] = ("default", "linear", "yarn")
    describe: Callable[[Any, Mapping[str, Any]], None] = nothing


def need(config: Mapping[str, Any], key: str) -> Any:
    """config[key], or an error that names the key."""
    if config.get(key) is None:
        raise ForgeError(f"config.json has no {key}", "take the model's original config.json")
    return config[key]


def only(config: Mapping[str, Any], key: str, value: Any, family: str) -> None:
    """Refuse a setting that llama.cpp has as a constant, where the model has another."""
    if config.get(key) not in (None, value):
        raise ForgeError(
            f"{family} with {key} {config[key]} cannot be exported to GGUF",
            f"llama.cpp has {value} for all models of this family",
        )
