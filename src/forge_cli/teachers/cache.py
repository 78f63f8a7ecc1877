"""Answers that were paid for once: a run that was stopped goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from forge_cli.core.records import Message
from forge_cli.teachers import Completion, Sampler, Teacher, Usage

if TYPE_CHECKING:
    from forge_cli.models.sampling import Draw

Kind = TypeVar("Kind", bound=Teacher, covariant=True)
Ask = Callable[[list[int], Callable[[int, Completion], None]], None]


class Cached(Generic[Kind]):
    """A teacher whose answers are kept in a file of JSON lines, by a hash of name,
    parameters and prompt, and of the draw where one was drawn.

    Lines are only ever added, each in one write, so that a run which is killed loses the
    answers that were under way and no other. Errors are not kept.
    """

    def __init__(self, teacher: Kind, folder: Path) -> None:
        self._teacher = teacher
        self.name = teacher.name
        name = hashlib.sha256(teacher.name.encode()).hexdigest()[:16]
        self.file = folder / f"{name}.jsonl"

    @property
    def usage(self) -> Usage:
        """What was asked anew; `cached` counts the rest."""
        return self._teacher.usage

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The teacher's own."""
        return self._teacher.parameters

    def complete(
        self, prompts: Sequence[list[Message]], done: Callable[[int, Completion], None]
    ) -> None:
        """See `Teacher.complete`."""

        def ask(missing: list[int], keep: Callable[[int, Completion], None]) -> None:
            self._teacher.complete([prompts[n] for n in missing], keep)

        self._answer([self._key(prompt) for prompt in prompts], ask, done)

    def sample(
        self: Cached[Sampler],
        prompts: Sequence[list[Message]],
        draws: Sequence[Draw],
        done: Callable[[int, Completion], None],
    ) -> None:
        """See `Sampler.sample`."""

        def ask(missing: list[int], keep: Callable[[int, Completion], None]) -> None:
            self._teacher.sample([prompts[n] for n in missing], [draws[n] for n in missing], keep)

        keys = [self._key(prompt, draw) for prompt, draw in zip(prompts, draws, strict=True)]
        self._answer(keys, ask, done)

    def _answer(
        self, keys: Sequence[str], ask: Ask, done: Callable[[int, Completion], None]
    ) -> None:
        """What is known at once, the rest from `ask`, which gets the numbers that are missing."""
        known = self._read()
        missing = [n for n, key in enumerate(keys) if key not in known]
        self.usage.cached += len(keys) - len(missing)
        for number, key in enumerate(keys):
            if key in known:
                done(number, known[key])
        if not missing:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # For its owner alone: answers quote private code.
        with open(self.file, "ab", buffering=0, opener=_private) as stream:

            def keep(number: int, found: Completion) -> None:
                if not found.error:
                    entry = {"key": keys[missing[number]], **vars(found)}
                    stream.write(b"\n" + json.dumps(entry).encode())
                done(missing[number], found)

            ask(missing, keep)

    def _key(self, prompt: list[Message], draw: Draw | None = None) -> str:
        asked = [[m.role, m.content] for m in prompt]
        parameters = dict(self.parameters) | (asdict(draw) if draw else {})
        told = json.dumps([self.name, parameters, asked], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def _read(self) -> dict[str, Completion]:
        known: dict[str, Completion] = {}
        lines = self.file.read_bytes().splitlines() if self.file.is_file() else []
        for line in lines:
            try:
                entry = json.loads(line)
                key = entry.pop("key")
                known[key] = Completion(**entry)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # torn by a crash, or not ours: it is asked again
        return known


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
