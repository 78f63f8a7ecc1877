"""A tiny random model of each family, tokenizer and kind of RoPE that Forge writes as GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tiny_gguf import random_weights, save_tokenizer, tiny_config
from tiny_sentencepiece import save_sentencepiece

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
FULL_YARN = {**YARN, "beta_fast": 32.0, "beta_slow": 1.0}
# Of Phi 4 mini; twelve pairs of a head of 32 are turned, by other factors in a long context.
LONG = {
    "type": "longrope",
    "long_factor": [1.0 + at * at / 4 for at in range(12)],
    "short_factor": [1.0 + at / 50 for at in range(12)],
}
# By name: model type, pre-tokeniser, what else config.json says.
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "llama-bpe", {"bos_token_id": 0, "eos_token_id": [2, 0]}),
    "llama, tied, with biases": (
        "llama", "smollm", {"tie_word_embeddings": True, "attention_bias": True},
    ),
    "llama 3 rope": ("llama", "gpt-2", {"rope_scaling": LLAMA3}),
    "linear rope": ("llama", "gpt-2", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "qwen2": ("qwen2", "qwen2", {}),
    "qwen2, yarn": ("qwen2", "qwen2", {"rope_scaling": YARN}),
    "qwen2, yarn said in full": ("qwen2", "qwen2", {"rope_scaling": FULL_YARN}),
    "qwen3": ("qwen3", "qwen2", {}),
    "qwen3, tied": ("qwen3", "qwen2", {"tie_word_embeddings": True}),
    "qwen3 with experts": ("qwen3_moe", "qwen2", {}),
    "smollm3": ("smollm3", "llama-bpe", {"tie_word_embeddings": True, "num_hidden_layers": 5}),
    "mixtral": ("mixtral", "pieces after a space", {}),
    "gemma2": ("gemma2", "pieces", {"sliding_window": 512}),
    "gemma3": ("gemma3_text", "pieces", {}),
    "gemma3, linear rope, another local base": (
        "gemma3_text", "pieces",
        {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_local_base_freq": 500.0},
    ),
    "mistral": ("mistral", "pieces after a space", {}),
    "phi3": ("phi3", "pieces after a space", {"sliding_window": 2047}),
    "phi4": ("phi3", "dbrx", {"original_max_position_embeddings": 512}),
    "phi3, partly rotary": ("phi3", "gpt-2", {"partial_rotary_factor": 0.5}),
    "phi3, long rope, tied": (
        "phi3", "gpt-2",
        {
            "partial_rotary_factor": 0.75, "rope_scaling": LONG, "tie_word_embeddings": True,
            "num_attention_heads": 8, "max_position_embeddings": 4096,
            "original_max_position_embeddings": 512,
        },
    ),
}  # fmt: skip
SENTENCEPIECE = {"pieces": False, "pieces after a space": True}


def save_family(
    folder: Path, family: str, *, vocab_extra: int = 5
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Save a family's tokenizer in `folder`; returns config and weights as mlx-lm names them.

    Args:
        vocab_extra: rows of the embedding beyond the tokens.
    """
    kind, pre, changes = FAMILIES[family]
    if pre in SENTENCEPIECE:
        tokens = save_sentencepiece(folder, prefix=SENTENCEPIECE[pre])
    else:
        tokens = save_tokenizer(folder, pre)
    config = tiny_config(kind, tokens + vocab_extra, **changes)
    return config, random_weights(config)
