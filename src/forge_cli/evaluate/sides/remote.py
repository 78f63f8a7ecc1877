"""A model behind an OpenAI-compatible endpoint: Ollama, llama-server, mlx_lm.server …"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forge_cli.core.records import Message
from forge_cli.teachers import Completion, Teacher, Usage


class RemoteSide:
    """Answers from a server; it says nothing about the likelihood of given answers."""

    def __init__(self, teacher: Teacher, max_tokens: int) -> None:
        self._teacher = teacher
        self.name = teacher.name
        if hasattr(teacher, "max_tokens"):
            teacher.max_tokens = max_tokens

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The teacher's own: what stands behind a server's name is the server's affair."""
        return self._teacher.parameters

    @property
    def usage(self) -> Usage:
        """See `Teacher.usage`."""
        return self._teacher.usage

    def complete(
        self, prompts: Sequence[list[Message]], done: Callable[[int, Completion], None]
    ) -> None:
        """See `Teacher.complete`."""
        self._teacher.complete(prompts, done)

    def losses(self, chats: Sequence[Sequence[Message]]) -> list[float] | None:
        """See `Side.losses`."""
        return None

    def close(self) -> None:
        """See `Side.close`."""
