"""What llama.cpp wants to know of each model family, and how its weights must lie.

Source: llama.cpp `conversion/{base,llama,qwen}.py`. A family is one row of
`ARCHITECTURES`; what is not there is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.rope import add_rope


@dataclass(frozen=True)
class Architecture:
    """One model family.

    Args:
        gguf: `general.architecture`.
        rotated: llama.cpp applies RoPE to neighbouring rows, so the rows of q and k are
            reordered from halves to pairs.
        rope_theta: what a config without `rope_theta` means; None: it must have one.
        block: weights that every block has, as named in Hugging Face checkpoints.
    """

    gguf: str
    rotated: bool = False
    rope_theta: float | None = None
    block: tuple[str, ...] = (
        "input_layernorm.weight",
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.v_proj.weight",
        "self_attn.o_proj.weight",
        "post_attention_layernorm.weight",
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
        "mlp.down_proj.weight",
    )


_PLAIN = Architecture.block
_QKV_BIASES = tuple(f"self_attn.{part}_proj.bias" for part in "qkv")
_QK_NORMS = tuple(f"self_attn.{part}_norm.weight" for part in "qk")

# By `model_type` of config.json. SmolLM 1 and 2 are llama, Qwen 2.5 is qwen2.
ARCHITECTURES = {
    "llama": Architecture("llama", rotated=True, rope_theta=10000.0),
    "mistral": Architecture("llama", rotated=True, rope_theta=10000.0),
    "qwen2": Architecture("qwen2", block=_PLAIN + _QKV_BIASES),
    "qwen3": Architecture("qwen3", block=_PLAIN + _QK_NORMS),
}

_IGNORED = (".rotary_emb.inv_freq",)  # computed, and in old checkpoints only


def find_architecture(config: Mapping[str, Any]) -> Architecture:
    """The family of a model, by its config.json.

    Raises:
        ForgeError: one that Forge cannot write as GGUF.
    """
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise ForgeError(
            f"model type {kind} cannot be exported to GGUF yet",
            f"supported: {', '.join(ARCHITECTURES)}",
        )
    return ARCHITECTURES[kind]


def add_architecture(writer: Any, arch: Architecture, config: Mapping[str, Any]) -> None:
    """Write a model's dimensions as GGUF metadata.

    Args:
        writer: gguf.GGUFWriter.

    Raises:
        ForgeError: config.json lacks a value, or asks for what llama.cpp cannot do.
    """
    heads = need(config, "num_attention_heads")
    head_dim = config.get("head_dim") or need(config, "hidden_size") // heads
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise ForgeError(
            f"activation {activation} cannot be exported to GGUF", "supported: silu (SwiGLU)"
        )
    writer.add_block_count(need(config, "num_hidden_layers"))
    writer.add_context_length(need(config, "max_position_embeddings"))
    writer.add_embedding_length(need(config, "hidden_size"))
    writer.add_feed_forward_length(need(config, "intermediate_size"))
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(need(config, "rms_norm_eps"))
    writer.add_vocab_size(need(config, "vocab_size"))
    if config.get("head_dim"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if arch.rotated:
        writer.add_rope_dimension_count(head_dim)
    add_rope(writer, config, arch.rope_theta)


def need(config: Mapping[str, Any], key: str) -> Any:
    """config[key], or an error that names the key."""
    if config.get(key) is None:
        raise ForgeError(f"config.json has no {key}", "take the model's original config.json")
    return config[key]


def map_names(
    names: Iterable[str], arch: Architecture, config: Mapping[str, Any]
) -> dict[str, str]:
    """GGUF tensor name → checkpoint name, in the order of the file.

    A tied output head is left out: llama.cpp uses the embedding.

    Raises:
        ForgeError: a weight is missing, unknown, or there twice.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    layers = need(config, "num_hidden_layers")
    kind = next(key for key, value in MODEL_ARCH_NAMES.items() if value == arch.gguf)
    table = get_tensor_name_map(kind, layers)
    names = [name for name in names if not name.endswith(_IGNORED)]
    if config.get("tie_word_embeddings"):
        names = [name for name in names if name != "lm_head.weight"]
    mapped: dict[str, str] = {}
    for name in names:
        found = table.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None or found in mapped:
            raise ForgeError(
                f"weight {name} has no place in a {arch.gguf} model",
                "export models of the supported types with their own weights only",
            )
        mapped[found] = name
    _check_complete(set(names), arch, layers, config)
    return dict(sorted(mapped.items(), key=lambda item: _position(item[0])))


def _check_complete(
    names: set[str], arch: Architecture, layers: int, config: Mapping[str, Any]
) -> None:
    wanted = ["model.embed_tokens.weight", "model.norm.weight"]
    wanted += [f"model.layers.{i}.{part}" for i in range(layers) for part in arch.block]
    if config.get("tie_word_embeddings") is False:
        wanted.append("lm_head.weight")
    if missing := [name for name in wanted if name not in names]:
        raise ForgeError(
            f"weight {missing[0]} is missing ({len(missing)} in all)",
            "the model is incomplete: take it again",
        )


def _position(name: str) -> tuple[int, int, str]:
    """Embedding, blocks by number, the rest: as llama.cpp's converter leaves them."""
    parts = name.split(".")
    if parts[0] == "blk":
        return 1, int(parts[1]), name
    return (0 if name.startswith("token_embd") else 2), 0, name


def rotate(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of q or k from halves (Hugging Face) to pairs (llama.cpp).

    Args:
        rows: weight [heads · head_dim, in] or bias [heads · head_dim].

    Returns:
        The same shape, C-contiguous.
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def rotated_heads(name: str, arch: Architecture, config: Mapping[str, Any]) -> int:
    """How many heads to `rotate` the tensor `name` (GGUF) by; 0: leave it as it is."""
    part = name.split(".")[-2] if arch.rotated else ""
    heads = int(need(config, "num_attention_heads"))
    return {"attn_q": heads, "attn_k": int(config.get("num_key_value_heads") or heads)}.get(part, 0)
