"""An exported GGUF file, run by llama.cpp in this process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from forge_cli.core.records import Message
from forge_cli.teachers import Completion, Usage

if TYPE_CHECKING:
    from forge_cli.models.llamacpp import LlamaCpp
    from forge_cli.models.sampling import Draw
    from forge_cli.models.shared_context import Row


class GgufSide:
    """Answers and losses of a file.

    Prompts are rendered and tokenised as the trained model's are: that the file's own template
    and tokenizer do the same is what the export's parity gate shows.
    """

    def __init__(self, file: Path, adapters: Path, *, max_tokens: int) -> None:
        self.name, self.file, self.max_tokens = file.name, file, max_tokens
        self.usage = Usage()
        self.base: str = json.loads((adapters / "config.json").read_text())["model"]
        self._open: LlamaCpp | None = None

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """The file's content and the answers' limit."""
        with open(self.file, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"max_tokens": self.max_tokens, "file": digest}

    @cached_property
    def tokenizer(self) -> Any:
        """That of the model which was trained."""
        from forge_cli.models.load import load_tokenizer
        from forge_cli.models.resolve import resolve

        return load_tokenizer(resolve(self.base))

    def complete(
        self, prompts: Sequence[list[Message]], done: Callable[[int, Completion], None]
    ) -> None:
        """See `Teacher.complete`.

        Raises:
            ForgeError: llama.cpp is missing or refuses the file.
        """
        self._answer(prompts, [None] * len(prompts), done)

    def sample(
        self,
        prompts: Sequence[list[Message]],
        draws: Sequence[Draw],
        done: Callable[[int, Completion], None],
    ) -> None:
        """See `Sampler.sample`; raises as `complete`."""
        self._answer(prompts, draws, done)

    def _answer(
        self,
        prompts: Sequence[list[Message]],
        draws: Sequence[Draw | None],
        done: Callable[[int, Completion], None],
    ) -> None:
        from forge_cli.models.chat import prompt_ids
        from forge_cli.models.prefixes import group_by_prefix

        ids = [prompt_ids(self.tokenizer, prompt) for prompt in prompts]
        model = self.opened(max(map(len, ids), default=0) + self.max_tokens)
        ends = set(self.tokenizer.eos_token_ids)
        # Neighbours share a prefix, which llama.cpp then keeps.
        for index in (index for group in group_by_prefix(ids) for index in group):
            tokens, chances = model.generate(ids[index], self.max_tokens, ends, draws[index])
            self.usage.answers += 1
            self.usage.prompt_tokens += len(ids[index])
            self.usage.completion_tokens += len(tokens)
            text = self.tokenizer.decode(tokens)
            sure = float(np.exp(np.mean(chances)))
            done(index, Completion(text, len(ids[index]), len(tokens), confidence=sure))

    def losses(self, chats: Sequence[Sequence[Message]]) -> list[float] | None:
        """See `Side.losses`."""
        from forge_cli.models.chat import tokenise

        rows = [tokenise(self.tokenizer, chat) for chat in chats]
        model = self.opened(max((len(row.ids) for row in rows), default=1))
        return [_mean_loss(model, row) for row in rows]

    def stream(self, prompt: list[Message]) -> Iterator[None]:
        """See `Side.stream`; without what the file was asked before."""
        from forge_cli.models.chat import prompt_ids

        ids = prompt_ids(self.tokenizer, prompt)
        model = self.opened(len(ids) + self.max_tokens)
        model.forget()
        for token, _ in model.stream(ids, self.max_tokens):
            yield
            if token in self.tokenizer.eos_token_ids:
                break

    def close(self) -> None:
        """See `Side.close`."""
        if self._open is not None:
            self._open.close()
        self._open = None

    def opened(self, context: int) -> LlamaCpp:
        """The model in memory, with room for so many tokens.

        Raises:
            ForgeError: see `complete`.
        """
        from forge_cli.models.llamacpp import LlamaCpp

        if self._open is None or self._open.n_ctx < context:
            self.close()
            self._open = LlamaCpp(self.file, context)
        return self._open


def _mean_loss(model: LlamaCpp, row: Row) -> float:
    """Mean cross-entropy per supervised token, in nats."""
    logits = model.logits(row.ids)[row.start - 1 : -1].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[np.arange(len(logits)), row.ids[row.start :]]
    return float((np.log(np.exp(logits).sum(axis=1)) - chosen).mean())
