"""Answers drawn at random, each by a key of its own: the same one alone and in any batch.

The largest of logits/T + Gumbel noise is a draw from softmax(logits/T) (Gumbel-max trick: Maddison,
Tarlow and Minka 2014, arXiv 1411.0030). The noise of a token depends on the draw and on its place
in the answer alone, and comes from NumPy: MLX and llama.cpp draw with the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Draw:
    """What decides one answer beside the model and the prompt.

    Attributes:
        temperature: T, what logits are divided by; more than 0.
        seed: of the whole evaluation. row: id of what is asked.
        sample: which of the row's answers, from 0.
    """

    temperature: float
    seed: int
    row: str
    sample: int

    @cached_property
    def key(self) -> int:
        """128 bits that seed, row and sample decide."""
        told = f"{self.seed}/{self.row}/{self.sample}"
        return int.from_bytes(hashlib.sha256(told.encode()).digest()[:16], "big")

    @property
    def server_seed(self) -> int:
        """31 bits of the key: no server takes that for negative or too large."""
        return self.key >> 97

    def noise(self, step: int, size: int) -> np.ndarray:
        """Standard Gumbel noise for the token at place `step` of the answer, float64 [size].

        A smaller vocabulary gets the beginning of a larger one's noise.
        """
        # A counter jump of 2^128 for each step: no token's numbers are another's.
        random = np.random.Generator(np.random.Philox(key=self.key, counter=step << 128))
        # In float64: a float32 exponential is 0, its logarithm infinite, once in 10^7.
        return -np.log(random.standard_exponential(size))

    def pick(self, logits: np.ndarray, step: int) -> int:
        """The token drawn from logits [V]; adding a constant to them changes nothing."""
        return int((logits / self.temperature + self.noise(step, len(logits))).argmax())
