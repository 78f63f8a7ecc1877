"""Sides that MLX runs in this process; each is loaded when it is first asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_cli.core.events import SILENT
from forge_cli.core.records import Message
from forge_cli.teachers import Completion, Usage

if TYPE_CHECKING:
    from forge_cli.evaluate.generation import Continuation
    from forge_cli.models.load import Loaded
    from forge_cli.models.sampling import Draw


class _Local:
    """Answers and losses from a loaded model."""

    def __init__(self, name: str, adapters: Path, *, max_tokens: int) -> None:
        self.name, self.adapters, self.max_tokens = name, adapters, max_tokens
        self.usage = Usage()
        self.config: dict[str, Any] = json.loads((adapters / "config.json").read_text())
        self._loaded: Loaded | None = None

    @property
    def base(self) -> str:
        """The name of the model that training began from."""
        return str(self.config["model"])

    def load(self) -> Loaded:
        """The model, ready to answer."""
        raise NotImplementedError

    @property
    def loaded(self) -> Loaded:
        """The model in memory."""
        if self._loaded is None:
            self._loaded = self.load()
        return self._loaded

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """Whatever decides an answer: the base's files and how they are quantised."""
        from forge_cli.models.load import fingerprint
        from forge_cli.models.resolve import resolve

        quantiser = {key: self.config.get(key) for key in ("bits", "group_size", "mode")}
        files = fingerprint(resolve(self.config["model"]))
        return {"max_tokens": self.max_tokens, "files": files, **quantiser}

    def complete(
        self, prompts: Sequence[list[Message]], done: Callable[[int, Completion], None]
    ) -> None:
        """See `Teacher.complete`."""
        self._answer(prompts, (), done)

    def sample(
        self,
        prompts: Sequence[list[Message]],
        draws: Sequence[Draw],
        done: Callable[[int, Completion], None],
    ) -> None:
        """See `Sampler.sample`."""
        self._answer(prompts, draws, done)

    def _answer(
        self,
        prompts: Sequence[list[Message]],
        draws: Sequence[Draw],
        done: Callable[[int, Completion], None],
    ) -> None:
        """Greedily where there are no draws."""
        from forge_cli.evaluate.generation import generate
        from forge_cli.models.chat import prompt_ids

        tokenizer = self.loaded.tokenizer
        ids = [prompt_ids(tokenizer, prompt) for prompt in prompts]

        def hand_on(index: int, answer: Continuation) -> None:
            text = tokenizer.decode(answer.tokens)
            made = Completion(
                text, len(ids[index]), len(answer.tokens), confidence=answer.confidence
            )
            self.usage.answers += 1
            self.usage.prompt_tokens += made.prompt_tokens
            self.usage.completion_tokens += made.completion_tokens
            done(index, made)

        generate(self.loaded, ids, self.max_tokens, hand_on, draws)

    def losses(self, chats: Sequence[Sequence[Message]]) -> list[float] | None:
        """See `Side.losses`."""
        from forge_cli.models.answer_losses import answer_losses

        return answer_losses(self.loaded, chats, self.name, SILENT)

    def stream(self, prompt: list[Message]) -> Iterator[None]:
        """See `Side.stream`; by mlx-lm's own loop, which serves one chat at a time."""
        from mlx_lm.generate import generate_step

        from forge_cli.models.backend import mx
        from forge_cli.models.chat import prompt_ids

        tokenizer = self.loaded.tokenizer
        ids = mx.array(prompt_ids(tokenizer, prompt))
        for token, _ in generate_step(ids, self.loaded.model, max_tokens=self.max_tokens):
            yield
            if int(token) in tokenizer.eos_token_ids:
                break

    def close(self) -> None:
        """See `Side.close`."""
        self._loaded = None


class BaseSide(_Local):
    """The model that training began from, quantised as the tuned one is."""

    def __init__(self, adapters: Path, *, max_tokens: int) -> None:
        super().__init__("base", adapters, max_tokens=max_tokens)

    def load(self) -> Loaded:
        """See `_Local.load`."""
        from forge_cli.models.load import load_base

        return load_base(
            self.config["model"],
            bits=self.config["bits"],
            group_size=self.config["group_size"],
            mode=self.config.get("mode", "affine"),
        )


class TunedSide(_Local):
    """A base with adapters: the best of a run, or those of one of its checkpoints."""

    def __init__(
        self, name: str, adapters: Path, *, max_tokens: int, checkpoint: Path | None = None
    ) -> None:
        super().__init__(name, adapters, max_tokens=max_tokens)
        self.checkpoint = checkpoint

    def load(self) -> Loaded:
        """See `_Local.load`."""
        from forge_cli.models.adapters import load_arrays, load_tuned

        if self.checkpoint is None:
            return load_tuned(self.adapters)
        mark = "adapter/"
        stored = load_arrays(self.checkpoint)
        arrays = {k.removeprefix(mark): v for k, v in stored.items() if k.startswith(mark)}
        return load_tuned(self.adapters, arrays=arrays)

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """The base's, and the adapters' own files."""
        files = [*sorted(self.adapters.glob("*.safetensors"))]
        files += [self.checkpoint] if self.checkpoint else []
        own = {file.name: _digest(file) for file in files}
        return {**super().parameters, "adapters": own}


class DirectorySide(_Local):
    """A model's directory, such as an exported one; quantised or not."""

    def __init__(self, folder: Path, adapters: Path, *, max_tokens: int) -> None:
        super().__init__(folder.name, adapters, max_tokens=max_tokens)
        self.folder = folder

    def load(self) -> Loaded:
        """See `_Local.load`."""
        from forge_cli.models.load import load_dense

        return load_dense(str(self.folder))

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """The directory's own files."""
        from forge_cli.models.load import fingerprint

        return {"max_tokens": self.max_tokens, "files": fingerprint(self.folder)}


def _digest(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
