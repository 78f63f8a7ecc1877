"""What can be judged: base, tuned, checkpoint, GGUF, model directory, or one behind HTTP.

A side answers prompts as a `Sampler` does, so that its answers are cached by model, parameters,
prompt and draw, and a run that was stopped goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from forge_cli.core.errors import UsageError
from forge_cli.core.records import Message
from forge_cli.teachers import OLLAMA, Sampler, open_teacher

_HINT = (
    "give base, tuned, checkpoint:STEP, a GGUF file, a run's or a model's directory, ollama:NAME "
    "or openai:NAME; +examples may follow"
)


class Side(Sampler, Protocol):
    """A teacher that draws samples, and may also know how likely given answers are."""

    def losses(self, chats: Sequence[Sequence[Message]]) -> list[float] | None:
        """Mean cross-entropy per token of each last message, in nats; None: not to be had."""

    def stream(self, prompt: list[Message]) -> Iterator[None]:
        """Answer greedily, with an item for each token at the moment it is there; for the clock.

        Of a server: for each piece that it sends, which is mostly a token.

        Raises:
            ForgeError: there is no answer.
        """

    def close(self) -> None:
        """Free the model; safe to call twice."""


@dataclass(frozen=True)
class SideSpec:
    """A side as it was asked for.

    Attributes:
        text: the whole of it, which names the side in reports.
        model: base, tuned, checkpoint:STEP, a path, or KIND:NAME of a teacher.
        examples: worked examples stand before the question.
    """

    text: str
    model: str
    examples: bool = False

    @classmethod
    def parse(cls, text: str) -> SideSpec:
        """Read `MODEL[+examples]`.

        Raises:
            UsageError: it names no side.
        """
        model = text.removesuffix("+examples")
        if not model or model.endswith("+examples"):
            raise UsageError(f"side {text!r} is not known", _HINT)
        return cls(text, model, examples=model != text)


def open_side(spec: SideSpec, adapters: Path, *, url: str | None, max_tokens: int) -> Side:
    """The model of a side, not loaded yet.

    Args:
        adapters: of the run that is judged.
        url: of the server, for ollama: and openai:.
        max_tokens: most tokens of an answer.

    Raises:
        UsageError: there is no such run, checkpoint or file, or the side is not known.
    """
    model = spec.model
    kind, _, rest = model.partition(":")
    if kind in ("ollama", "openai"):
        from forge_cli.evaluate.sides.remote import RemoteSide
        from forge_cli.teachers.openai import OpenAITeacher

        teacher = open_teacher(model, url=url or (OLLAMA if kind == "ollama" else None))
        assert isinstance(teacher, OpenAITeacher)
        return RemoteSide(teacher, max_tokens)
    if model.endswith(".gguf"):
        from forge_cli.evaluate.sides.gguf import GgufSide

        return GgufSide(_existing(Path(model)), adapters, max_tokens=max_tokens)
    from forge_cli.evaluate.sides.local import BaseSide, DirectorySide, TunedSide

    if model == "base":
        return BaseSide(adapters, max_tokens=max_tokens)
    if model == "tuned":
        return TunedSide("tuned", adapters, max_tokens=max_tokens)
    if kind == "checkpoint":
        file = adapters.parent / "checkpoints" / f"step-{rest:0>8}.safetensors"
        return TunedSide(model, adapters, checkpoint=_existing(file), max_tokens=max_tokens)
    if (Path(model) / "config.json").is_file():
        return DirectorySide(Path(model), adapters, max_tokens=max_tokens)
    if (Path(model) / "adapters").is_dir():
        return TunedSide(model, Path(model) / "adapters", max_tokens=max_tokens)
    raise UsageError(f"side {spec.text!r} is not known", _HINT)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise UsageError(f"{file}: no such file", _HINT)
    return file
