"""NEFTune (arXiv 2310.05914): uniform noise on the embeddings, in training only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.models.adapters import get_module, set_module
from forge_cli.models.backend import mx, nn
from forge_cli.train.micro_batches import Batch


class _Noisy(nn.Module):
    """An embedding whose output carries noise; as an output layer it is what it was."""

    def __init__(self, base: Any, alpha: float, length: int, key: mx.array) -> None:
        super().__init__()
        self.base = base
        self.alpha, self.length = alpha, length
        self._key, self._calls = key, 0

    def __call__(self, ids: mx.array) -> mx.array:
        found = self.base(ids)
        # A prefix and its branches are embedded one after the other.
        key = mx.random.split(self._key, self._calls + 1)[-1]
        self._calls += 1
        bound = self.alpha / (self.length * found.shape[-1]) ** 0.5
        noise = mx.random.uniform(-bound, bound, found.shape, key=key)
        return found + noise.astype(found.dtype)

    def as_linear(self, hidden: mx.array) -> mx.array:
        return self.base.as_linear(hidden)


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
        base = get_module(self.model, self.path)
        key = mx.random.key(self.seed)
        for part in (step, number):
            key = mx.random.split(key, 1)[0] ^ mx.array(part, dtype=mx.uint32)
        set_module(self.model, self.path, _Noisy(base, self.alpha, batch.length, key))
        try:
            yield
        finally:
            set_module(self.model, self.path, base)


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
