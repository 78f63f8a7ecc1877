"""Who answers: a model in this process, whose quotes cannot be false, or one behind HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Message
from forge_cli.teachers import Completion

if TYPE_CHECKING:
    from forge_cli.models.load import Loaded
    from forge_cli.teachers.openai import OpenAITeacher

MAX_ANSWER = 256  # tokens: twice what training's longest answers have


@dataclass(frozen=True)
class Written:
    """An answer as it was written. whole: it came to its end before the limit."""

    text: str
    tokens: int
    whole: bool = True


class Answerer(Protocol):
    """A model that answers a chat about documents."""

    @property
    def name(self) -> str:
        """What users know it by."""

    def has_room(self, messages: Sequence[Message]) -> bool:
        """Whether prompt and answer fit into the model's context."""

    def answer(self, messages: list[Message], documents: Sequence[str]) -> Written:
        """The greedy answer; `documents` are what the chat shows.

        Raises:
            ForgeError: there is none.
        """


class MlxAnswerer:
    """The tuned model of an adapter folder, or a model by its name; loaded when first needed."""

    def __init__(self, model: str | Path, reporter: Reporter = SILENT) -> None:
        """`model`: the adapter folder, or the name."""
        self._model, self._reporter = model, reporter
        folder = model if isinstance(model, Path) else None
        self.name = str(folder.parent if folder and folder.name == "adapters" else model)

    @cached_property
    def loaded(self) -> Loaded:
        """The model in memory.

        Raises:
            UsageError, ForgeError: it cannot be loaded.
        """
        if isinstance(self._model, Path):
            from forge_cli.models.adapters import load_tuned

            return load_tuned(self._model, reporter=self._reporter)
        from forge_cli.models.generate import load_to_generate

        return load_to_generate(self._model, reporter=self._reporter)

    def has_room(self, messages: Sequence[Message]) -> bool:
        """See `Answerer`; by the positions that the model was made for."""
        from forge_cli.models.chat import prompt_ids

        most = self.loaded.config.get("max_position_embeddings")
        if not most:
            return True
        return len(prompt_ids(self.loaded.tokenizer, messages)) + MAX_ANSWER <= int(most)

    def answer(self, messages: list[Message], documents: Sequence[str]) -> Written:
        """See `Answerer`."""
        from forge_cli.models.quoted_answer import answer_with_quotes

        found = answer_with_quotes(self.loaded, messages, documents, MAX_ANSWER)
        return Written(found.text, found.tokens, found.whole)


class ServerAnswerer:
    """A model behind an OpenAI-compatible server, which may quote what is nowhere.

    A llama-server is given a grammar in which it cannot.
    """

    def __init__(self, teacher: OpenAITeacher) -> None:
        self._teacher = teacher
        teacher.max_tokens = MAX_ANSWER

    @property
    def name(self) -> str:
        """Kind and model."""
        return self._teacher.name

    def has_room(self, messages: Sequence[Message]) -> bool:
        """The server knows its context, and refuses what is too long."""
        return True

    def answer(self, messages: list[Message], documents: Sequence[str]) -> Written:
        """See `Answerer`."""
        if self._is_llama_server():
            from forge_cli.ask.grammar import answer_grammar

            self._teacher.extra = {"grammar": answer_grammar(documents)}
        found = self._ask(messages)
        if found.error and self._teacher.extra:
            self._teacher.extra = {}  # it may take no grammar of this size
            found = self._ask(messages)
        if found.error:
            raise ForgeError(
                f"{self.name} at {self._teacher.url}: no answer: {found.error}",
                "see that the server runs and has that model; --url names another address",
            )
        # JSON can hold halves of a character, which nothing can print.
        text = found.text.encode("utf-8", "replace").decode()
        return Written(text, found.completion_tokens, found.completion_tokens < MAX_ANSWER)

    def _ask(self, messages: list[Message]) -> Completion:
        answers: list[Completion] = []
        self._teacher.complete([messages], lambda _, found: answers.append(found))
        return answers[0]

    def _is_llama_server(self) -> bool:
        """By what it says of its models; other servers refuse or pass over a grammar."""
        import httpx

        if self.name.startswith("ollama:"):
            return False
        try:
            url, headers = f"{self._teacher.url}/models", self._teacher.headers()
            models = httpx.get(url, headers=headers, timeout=5.0).json()["data"]
            return any(model.get("owned_by") == "llamacpp" for model in models)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError):
            return False
