"""A teacher in this process: a model that mlx-lm can load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from forge_cli.core.records import Message
from forge_cli.teachers import Completion, Usage

_BATCH = 8


class MlxTeacher:
    """Greedy decoding in batches; the model is loaded at the first prompt."""

    def __init__(self, model: str, *, max_tokens: int = 512) -> None:
        self.name = f"mlx:{model}"
        self.usage = Usage()
        self._model, self._max_tokens = model, max_tokens
        self._loaded: Any = None

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """The model's files among them: a directory may hold other weights the next time."""
        from forge_cli.models.load import fingerprint
        from forge_cli.models.resolve import resolve

        return {"max_tokens": self._max_tokens, "files": fingerprint(resolve(self._model))}

    def complete(
        self, prompts: Sequence[list[Message]], done: Callable[[int, Completion], None]
    ) -> None:
        """See `Teacher.complete`.

        Raises:
            UsageError, ForgeError: the model cannot be loaded.
        """
        from forge_cli.models.generate import generate, load_to_generate

        if self._loaded is None and prompts:
            self._loaded = load_to_generate(self._model)
        for start in range(0, len(prompts), _BATCH):
            batch = prompts[start : start + _BATCH]
            for number, found in enumerate(generate(self._loaded, batch, self._max_tokens), start):
                self.usage.answers += 1
                self.usage.prompt_tokens += found.prompt_tokens
                self.usage.completion_tokens += found.tokens
                done(number, Completion(found.text, found.prompt_tokens, found.tokens))
