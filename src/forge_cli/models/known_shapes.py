"""Shapes of the models that recipes name, from their config.json, to plan before a download.

Rows: layers, hidden, heads, key-value heads, head size, MLP size, vocabulary, tied.
"""

from __future__ import annotations

from forge_cli.models.shapes import Shapes

KNOWN = {
    "smollm2-135m": Shapes(30, 576, 9, 3, 64, 1536, 49152, True),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": Shapes(24, 2048, 32, 32, 64, 8192, 49152, True),
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": Shapes(24, 896, 14, 2, 64, 4864, 151936, True),
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": Shapes(28, 1536, 12, 2, 128, 8960, 151936, True),
    "Qwen/Qwen2.5-Coder-3B-Instruct": Shapes(36, 2048, 16, 2, 128, 11008, 151936, True),
    "Qwen/Qwen2.5-Coder-7B-Instruct": Shapes(28, 3584, 28, 4, 128, 18944, 152064, False),
    "Qwen/Qwen2.5-Coder-14B-Instruct": Shapes(48, 5120, 40, 8, 128, 13824, 152064, False),
    "Qwen/Qwen2.5-Coder-32B-Instruct": Shapes(64, 5120, 40, 8, 128, 27648, 152064, False),
    "Qwen/Qwen3-1.7B": Shapes(28, 2048, 16, 8, 128, 6144, 151936, True),
    "Qwen/Qwen3-4B": Shapes(36, 2560, 32, 8, 128, 9728, 151936, True),
    "Qwen/Qwen3-8B": Shapes(36, 4096, 32, 8, 128, 12288, 151936, False),
    "Qwen/Qwen3-14B": Shapes(40, 5120, 40, 8, 128, 17408, 151936, False),
    "Qwen/Qwen3-32B": Shapes(64, 5120, 64, 8, 128, 25600, 151936, False),
    "meta-llama/Llama-3.2-3B-Instruct": Shapes(28, 3072, 24, 8, 128, 8192, 128256, True),
    "meta-llama/Llama-3.1-8B-Instruct": Shapes(32, 4096, 32, 8, 128, 14336, 128256, False),
    "meta-llama/Llama-3.3-70B-Instruct": Shapes(80, 8192, 64, 8, 128, 28672, 128256, False),
    "google/gemma-3-1b-it": Shapes(26, 1152, 4, 1, 256, 6912, 262144, True),
    "mistralai/Mistral-7B-Instruct-v0.3": Shapes(32, 4096, 32, 8, 128, 14336, 32768, False),
    "mistralai/Mistral-Small-24B-Instruct-2501": Shapes(40, 5120, 32, 8, 128, 32768, 131072, False),
}
