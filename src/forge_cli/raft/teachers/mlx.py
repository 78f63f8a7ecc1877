"""A teacher in this process: a model that mlx-lm can load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from forge_cli.core.records import Message
from forge_cli.raft.teachers import Completion, Usage


class MlxTeacher:
    """Greedy decoding, one prompt after the other; the model is loaded at the first."""

    def __init__(self, model: str, *, max_tokens: int = 512) -> None:
        self.name = f"mlx:{model}"
        self.usage = Usage()
        self._model, self._max_tokens = model, max_tokens
        self._loaded: Any = None

    def complete(
        self, prompts: Sequence[list[Message]], done: Callable[[int, Completion], None]
    ) -> None:
        """See `Teacher.complete`.

        Raises:
            UsageError, ForgeError: the model cannot be loaded.
        """
        from mlx_lm.generate import stream_generate

        from forge_cli.models.chat import prompt_ids
        from forge_cli.models.load import load_dense

        if self._loaded is None and prompts:
            self._loaded = load_dense(self._model)
        for number, prompt in enumerate(prompts):
            ids = prompt_ids(self._loaded.tokenizer, prompt)
            parts, written = [], 0
            for part in stream_generate(
                self._loaded.model, self._loaded.tokenizer, ids, max_tokens=self._max_tokens
            ):
                parts.append(part.text)
                written = part.generation_tokens
            self.usage.answers += 1
            self.usage.prompt_tokens += len(ids)
            self.usage.completion_tokens += written
            done(number, Completion("".join(parts), len(ids), written))
