"""LoRA (arXiv 2106.09685): A random, B zero, so that training starts at the base itself."""

from __future__ import annotations

from forge_cli.models.backend import mx
from forge_cli.train.inits import Start


def lora_start(weight: mx.array, *, rank: int, seed: int = 0) -> Start:
    """For W [out, in]: A uniform in ±1/√in (as PEFT and mlx-lm), B = 0."""
    out, width = weight.shape
    bound = width**-0.5
    A = mx.random.uniform(-bound, bound, (rank, width), key=mx.random.key(seed))
    return Start(A, mx.zeros((out, rank)))
