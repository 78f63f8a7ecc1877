"""NEFTune (arXiv 2310.05914): uniform noise on the embeddings, in training only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.models.adapters import get_module
from forge_cli.models.backend import mx, nn
from forge_cli.models.quantise import logical_shape
from forge_cli.train.micro_batches import Batch


class Neftune:
    """Noise of α/√(L·d)·U(−1, 1) for rows of L positions and embeddings of d numbers.

    Its key is made of seed, step and batch, so a resumed run draws what an uninterrupted
    one does.

    Raises:
        UsageError: the model has no embedding that Forge knows.
    """

    def __init__(self, model: nn.Module, alpha: float, seed: int) -> None:
        self.model, self.alpha, self.seed = model, alpha, seed
        self.path = _embedding(model)

    @contextmanager
    def __call__(self, batch: Batch, step: int, number: int) -> Iterator[None]:
        """Let the embedding of the model carry noise within the block."""
        embedding = get_module(self.model, self.path)
        key = mx.random.key(self.seed)
        for part in (step, number):
            key = mx.random.split(key, 1)[0] ^ mx.array(part, dtype=mx.uint32)
        bound = self.alpha / (batch.length * logical_shape(embedding)[1]) ** 0.5
        kind = type(embedding)
        # A class of its own for the object: all else of the embedding stays as it is, also
        # where it is the output layer too.
        embedding.__class__ = type(kind.__name__, (kind,), {"__call__": _noisy(kind, bound, key)})
        try:
            yield
        finally:
            embedding.__class__ = kind


def _noisy(kind: Any, bound: float, key: mx.array) -> Any:
    keys = count()

    def call(self: Any, ids: mx.array) -> mx.array:
        found = kind.__call__(self, ids)
        # A prefix and its branches are embedded one after the other.
        own = mx.random.split(key, next(keys) + 1)[-1]
        noise = mx.random.uniform(-bound, bound, found.shape, key=own)
        return found + noise.astype(found.dtype)

    return call


def _embedding(model: nn.Module) -> str:
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding | nn.QuantizedEmbedding)
    ]
    if len(names) != 1:
        raise UsageError(
            f"neftune: {len(names)} embeddings in this model, one is needed", "set neftune to 0"
        )
    return names[0]
