"""Where each weight of a checkpoint goes in a GGUF file, and in which order its rows lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.architectures import Architecture, need

_IGNORED = (".rotary_emb.inv_freq",)  # computed, and in old checkpoints only


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
        known = name
        for part, other in arch.renamed:
            known = known.replace(part, other)
        found = table.get_name(known, try_suffixes=(".weight", ".bias"))
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
