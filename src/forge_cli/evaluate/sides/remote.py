"""A model behind an OpenAI-compatible endpoint: Ollama, llama-server, mlx_lm.server …"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forge_cli.core.records import Message
from forge_cli.teachers import Completion, Usage

if TYPE_CHECKING:
    from forge_cli.models.sampling import Draw
    from forge_cli.teachers.openai import OpenAITeacher


class RemoteSide:
    """Answers from a server; it says nothing about the likelihood of given answers."""

    def __init__(self, teacher: OpenAITeacher, max_tokens: int) -> None:
        self._teacher = teacher
        self.name = teacher.name
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

    def sample(
        self,
        prompts: Sequence[list[Message]],
        draws: Sequence[Draw],
        done: Callable[[int, Completion], None],
    ) -> None:
        """See `Sampler.sample`."""
        self._teacher.sample(prompts, draws, done)

    def losses(self, chats: Sequence[Sequence[Message]]) -> list[float] | None:
        """See `Side.losses`."""
        return None

    def stream(self, prompt: list[Message]) -> Iterator[None]:
        """See `Side.stream`; a server may know the beginning of a prompt from the one before."""
        from forge_cli.teachers.streaming import stream

        for _ in stream(self._teacher, prompt):
            yield

    def close(self) -> None:
        """See `Side.close`."""
