"""A run's model as other harnesses use one: on plain token ids, with stop strings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from forge_cli.core.errors import UsageError
from forge_cli.evaluate.sides import SideSpec, open_side
from forge_cli.evaluate.sides.gguf import GgufSide
from forge_cli.evaluate.sides.local import BaseSide, TunedSide
from forge_cli.models.shared_context import Row

_SIDES = "give side=base, tuned, checkpoint:STEP or a GGUF file"


@dataclass(frozen=True)
class Written:
    """An answer.

    Attributes:
        text: without its end-of-turn token, up to the first stop string.
        tokens: that were made, those of the stop string included.
        whole: the model or a stop string ended it, not the limit.
    """

    text: str
    prompt_tokens: int
    tokens: int
    whole: bool


class RunModel(Protocol):
    """What a harness asks of a model; it is loaded by the first question."""

    @property
    def base(self) -> str:
        """The name of the model that training began from."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides its answers: hashes of its files, and how it is quantised."""

    @property
    def tokenizer(self) -> Any:
        """Of the base: mlx_lm's TokenizerWrapper."""

    @property
    def max_length(self) -> int:
        """Tokens that it was made for, prompt and answer together."""

    def likelihoods(self, rows: Sequence[Row], done: Callable[[int, float, bool], None]) -> None:
        """See `models.likelihoods`."""

    def generate(
        self,
        prompts: Sequence[list[int]],
        limit: int,
        stops: Sequence[str],
        done: Callable[[int, Written], None],
    ) -> None:
        """Answer prompts greedily; `done` gets each one's number and its answer.

        Args:
            prompts: token ids. limit: most tokens of an answer.
            stops: strings that end an answer.
        """

    def close(self) -> None:
        """Free the model."""


def open_run_model(run: Path, side: str = "tuned") -> RunModel:
    """The model of a run, not loaded yet.

    Args:
        run: a run directory.
        side: base, tuned, checkpoint:STEP or a GGUF file.

    Raises:
        UsageError: there is no such run, or the side is not one of these.
    """
    adapters = run / "adapters"
    if not (adapters / "config.json").is_file():
        raise UsageError(
            f"{run}: not a run that was trained (no adapters/config.json)",
            "give the directory of one, such as .forge/runs/NAME",
        )
    # A harness may change its working directory before the file is opened.
    spec = SideSpec.parse(str(Path(side).absolute()) if side.endswith(".gguf") else side)
    if spec.examples or spec.model.partition(":")[0] in ("ollama", "openai"):
        raise UsageError(f"side {side!r} is for forge eval", _SIDES)
    opened = open_side(spec, adapters.absolute(), url=None, max_tokens=0)
    if isinstance(opened, GgufSide):
        return _LlamaCppModel(opened)
    assert isinstance(opened, BaseSide | TunedSide)
    return _MlxModel(opened)


class _Model:
    """What is the same in both."""

    def __init__(self, side: BaseSide | TunedSide | GgufSide) -> None:
        self._side = side

    @property
    def base(self) -> str:
        """See `RunModel.base`."""
        return self._side.base

    @property
    def parameters(self) -> dict[str, Any]:
        """See `RunModel.parameters`."""
        return {k: v for k, v in self._side.parameters.items() if k != "max_tokens"}

    @cached_property
    def max_length(self) -> int:
        """See `RunModel.max_length`."""
        from forge_cli.models.resolve import resolve

        config = json.loads((resolve(self.base) / "config.json").read_text(encoding="utf-8"))
        return int(config.get("max_position_embeddings") or 2048)

    def close(self) -> None:
        """See `RunModel.close`."""
        self._side.close()


class _MlxModel(_Model):
    """Run by MLX in this process."""

    _side: BaseSide | TunedSide

    @property
    def tokenizer(self) -> Any:
        """See `RunModel.tokenizer`."""
        return self._side.loaded.tokenizer

    def likelihoods(self, rows: Sequence[Row], done: Callable[[int, float, bool], None]) -> None:
        """See `RunModel.likelihoods`."""
        from forge_cli.models.likelihoods import likelihoods

        likelihoods(self._side.loaded, rows, done)

    def generate(
        self,
        prompts: Sequence[list[int]],
        limit: int,
        stops: Sequence[str],
        done: Callable[[int, Written], None],
    ) -> None:
        """See `RunModel.generate`."""
        from forge_cli.evaluate.generation import Continuation, generate

        stop = _Stops(self.tokenizer, stops)

        def hand_on(index: int, answer: Continuation) -> None:
            ended = len(answer.log_probabilities) > len(answer.tokens)
            done(index, stop.written(prompts[index], answer.tokens, ended=ended))

        ended = (lambda _, tokens: stop.reached(tokens)) if stop.texts else None
        generate(self._side.loaded, prompts, limit, hand_on, ended=ended)


class _LlamaCppModel(_Model):
    """Run by llama.cpp in this process."""

    _side: GgufSide

    @property
    def tokenizer(self) -> Any:
        """See `RunModel.tokenizer`."""
        return self._side.tokenizer

    def likelihoods(self, rows: Sequence[Row], done: Callable[[int, float, bool], None]) -> None:
        """See `RunModel.likelihoods`."""
        model = self._side.opened(max((len(row.ids) for row in rows), default=1))
        # Neighbours in this order share the most, which llama.cpp keeps.
        for index in sorted(range(len(rows)), key=lambda i: rows[i].ids):
            row = rows[index]
            total, likeliest = 0.0, True
            logits = model.logits(row.ids[:-1], row.start - 1)
            # One position at a time: in float64 all of a long text would take gigabytes.
            for scores, target in zip(logits, row.ids[row.start :], strict=True):
                shifted = scores.astype(np.float64) - scores.max()
                total += shifted[target] - np.log(np.exp(shifted).sum())
                likeliest = likeliest and int(scores.argmax()) == target
            done(index, float(total), likeliest)

    def generate(
        self,
        prompts: Sequence[list[int]],
        limit: int,
        stops: Sequence[str],
        done: Callable[[int, Written], None],
    ) -> None:
        """See `RunModel.generate`."""
        stop = _Stops(self.tokenizer, stops)
        model = self._side.opened(max(map(len, prompts), default=0) + limit)
        ends = set(self.tokenizer.eos_token_ids)
        ended = stop.reached if stop.texts else None
        for index in sorted(range(len(prompts)), key=lambda i: prompts[i]):
            tokens, chances = model.generate(prompts[index], limit, ends, ended=ended)
            done(index, stop.written(prompts[index], tokens, ended=len(chances) > len(tokens)))


class _Stops:
    """Strings that end an answer, looked for while it grows."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.texts = [text for text in texts if text]
        # No token is shorter than a byte. The rest is for what decodes otherwise at a beginning.
        self._tail = max((len(text.encode()) for text in self.texts), default=0) + 8

    def reached(self, tokens: list[int]) -> bool:
        """Whether the last tokens of an answer hold one of them."""
        tail = self.tokenizer.decode(tokens[-self._tail :])
        return any(text in tail for text in self.texts)

    def written(self, prompt: list[int], tokens: list[int], *, ended: bool) -> Written:
        """An answer up to the first of them."""
        text = self.tokenizer.decode(tokens)
        found = [at for at in map(text.find, self.texts) if at >= 0]
        text = text[: min(found)] if found else text
        return Written(text, len(prompt), len(tokens), whole=ended or bool(found))
