"""The model families that can be written as GGUF: a small file each; others are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.architectures.family import Architecture, need
from forge_cli.export.gguf.architectures.gemma import GEMMA2, GEMMA3
from forge_cli.export.gguf.architectures.llama import LLAMA, MIXTRAL, SMOLLM3
from forge_cli.export.gguf.architectures.phi import PHI3
from forge_cli.export.gguf.architectures.qwen import QWEN2, QWEN3, QWEN3_MOE

# By `model_type` of config.json. SmolLM 1 and 2 are llama, Qwen 2.5 is qwen2, Phi 4 is phi3.
ARCHITECTURES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "mixtral": MIXTRAL,
    "smollm3": SMOLLM3,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "qwen3_moe": QWEN3_MOE,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "phi3": PHI3,
}


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


__all__ = ["ARCHITECTURES", "Architecture", "find_architecture", "need"]
