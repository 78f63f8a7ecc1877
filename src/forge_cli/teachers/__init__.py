"""Who can write questions: one Protocol; a model in this process, or one behind HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from forge_cli.core.errors import UsageError
from forge_cli.core.records import Message

if TYPE_CHECKING:
    from forge_cli.models.sampling import Draw

_HINT = "give none, mlx:MODEL, ollama:MODEL or openai:MODEL"
OLLAMA, OPENAI = "http://127.0.0.1:11434/v1", "https://api.openai.com/v1"


@dataclass(frozen=True)
class Completion:
    """What a teacher wrote, or why it did not.

    Attributes:
        confidence: geometric mean of the tokens' probabilities, where they are known.
    """

    text: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""
    confidence: float | None = None


@dataclass
class Usage:
    """What the answers cost."""

    answers: int = 0
    cached: int = 0
    failed: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    errors: list[str] = field(default_factory=list)

    def cost(self, price: Sequence[float]) -> float:
        """In the currency of `price`: for a million prompt and a million completion tokens."""
        return (self.prompt_tokens * price[0] + self.completion_tokens * price[1]) / 1e6


class Teacher(Protocol):
    """A model that answers prompts, in any order."""

    @property
    def name(self) -> str:
        """Kind and model, as in `--teacher`."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What decides an answer beside name and prompt."""

    @property
    def usage(self) -> Usage:
        """What has been asked so far."""

    def complete(
        self, prompts: Sequence[list[Message]], done: Callable[[int, Completion], None]
    ) -> None:
        """Answer every prompt; `done` gets its number and the answer as soon as it is there.

        Raises:
            ForgeError: no prompt can be answered (no server, no key, no such model).
        """


class Sampler(Teacher, Protocol):
    """A teacher that also draws answers at random."""

    def sample(
        self,
        prompts: Sequence[list[Message]],
        draws: Sequence[Draw],
        done: Callable[[int, Completion], None],
    ) -> None:
        """As `complete`, each prompt answered by its draw; one prompt may come many times.

        Raises:
            ForgeError: as `complete`.
        """


def open_teacher(
    spec: str,
    *,
    url: str | None = None,
    jobs: int = 4,
    timeout: float = 120.0,
    cache: Path | None = None,
) -> Teacher | None:
    """The teacher that `spec` names; None for "none".

    Args:
        url: of the server, up to and with /v1 (none: Ollama's or OpenAI's own).
        jobs: requests at once.
        timeout: seconds for one try of a request.
        cache: a folder that keeps the answers, so that none is paid for twice.

    Raises:
        UsageError: no such kind of teacher, or a URL with a password in it.
    """
    check_spec(spec)
    _check_url(url or "")
    kind, _, model = spec.partition(":")
    if kind == "none":
        return None
    teacher: Teacher
    if kind == "mlx":
        from forge_cli.teachers.mlx import MlxTeacher

        teacher = MlxTeacher(model)
    else:
        from forge_cli.teachers.openai import OpenAITeacher

        at = url or (OLLAMA if kind == "ollama" else OPENAI)
        teacher = OpenAITeacher(spec, model, at, jobs=jobs, timeout=timeout)
    if cache is None:
        return teacher
    from forge_cli.teachers.cache import Cached

    return Cached(teacher, cache)


def check_spec(spec: str) -> None:
    """Raise UsageError for what names no teacher."""
    kind, _, model = spec.partition(":")
    if spec != "none" and (kind not in ("mlx", "ollama", "openai") or not model):
        raise UsageError(f"teacher {spec!r} is not known", _HINT)


def _check_url(url: str) -> None:
    """Settings are written into the run directory: they are no place for a secret."""
    try:
        split = urlsplit(url)
    except ValueError:
        raise UsageError("--teacher-url: not an address", "write http://HOST:PORT/v1") from None
    if split.username or split.password or split.query:
        raise UsageError("--teacher-url: holds a password or a query", "export OPENAI_API_KEY")
