"""Uploaded rows: chats as OpenAI writes them, or Forge's own records; and what trains of a chat.

A chat `{"messages": […]}` becomes one example for each turn of the assistant, without documents:
what trains is that turn after all that came before it. A turn of `weight` 0 is only shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import from_json

from forge_cli.core.errors import UsageError
from forge_cli.core.records import (
    Answer,
    Example,
    Message,
    Origin,
    Preference,
    Record,
    Split,
    content_id,
)  # fmt: skip

Kind = Literal["chat", "example", "preference"]
_RECORDS: dict[str, type[Record]] = {"example": Example, "preference": Preference}

# A list of a megabyte of faults would take a gigabyte to tell of.
_PARTS = 2000  # of a turn
_ENTRIES = 10_000  # of a list in a record


class Part(BaseModel):
    """A piece of a turn's content; only text trains."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class Turn(BaseModel):
    """One message of a chat, as OpenAI's fine-tuning files have it."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(max_length=_PARTS)]
    name: str | None = None
    weight: Literal[0, 1] | None = None

    @property
    def text(self) -> str:
        """The content, whole."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)

    @property
    def trains(self) -> bool:
        """Whether the loss counts it."""
        return self.role == "assistant" and self.weight != 0

    def message(self) -> Message:
        """The turn as it is rendered; a developer is a system by another name."""
        role = "system" if self.role == "developer" else self.role
        return Message(role=role, content=self.text)


class Chat(BaseModel):
    """One line of a file of chats."""

    model_config = ConfigDict(extra="forbid")

    messages: list[Turn] = Field(min_length=2, max_length=2000)

    @model_validator(mode="after")
    def _can_train(self) -> Chat:
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message must be the assistant's")
        if not any(turn.trains for turn in self.messages):
            raise ValueError("no message of the assistant has a weight")
        if self.messages[0].role == "assistant":
            raise ValueError("the first message cannot be the assistant's")
        if any(turn.trains and not turn.text.strip() for turn in self.messages):
            raise ValueError("a message of the assistant is empty")
        return self

    def cost(self) -> int:
        """Characters of its rows together, which grow with the square of its turns."""
        total = shown = 0
        for turn in self.messages:
            shown += len(turn.text)
            total += shown if turn.trains else 0
        return total


def check_line(line: bytes, number: int) -> tuple[Kind, int]:
    """What kind of row a line is, and how many characters it comes to when it trains.

    Raises:
        UsageError: it is none; where and why is said, without what it holds.
    """
    where = f"line {number}"
    try:
        value = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise UsageError(f"{where}: not JSON: {error}", "write one JSON object a line") from None
    if not isinstance(value, dict):
        raise UsageError(f"{where}: not a JSON object", "write one JSON object a line")
    name = value.get("record")
    try:
        if name is None:
            return "chat", Chat.model_validate(value).cost()
        if not isinstance(name, str) or name not in _RECORDS:
            raise UsageError(
                f"{where}: a record {str(name)[:40]!r}, which does not train",
                "upload chats, or what forge raft and forge validate write",
            )
        if any(len(entries) > _ENTRIES for entries in _lists(value)):
            raise UsageError(f"{where}: a list of more than {_ENTRIES} entries", "split the row")
        _RECORDS[name].model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:40] for part in fault["loc"])
        raise UsageError(
            f"{where}: {place + ': ' if place else ''}{fault['msg']}",
            'a chat is {"messages": [{"role": …, "content": …}, …]} and ends with the assistant; '
            "tools and images do not train",
        ) from None
    return ("example" if name == "example" else "preference"), len(line)


def _lists(record: dict[str, Any]) -> Iterator[list[Any]]:
    """Those of a record that is not checked yet, its own and those of its parts."""
    for value in record.values():
        for inner in (value, *value.values()) if isinstance(value, dict) else (value,):
            if isinstance(inner, list):
                yield inner


_CHAT = TypeAdapter(Chat)


def examples_of(lines: Iterable[str], split: Split) -> list[Example]:
    """The examples of a file of chats, all of one split."""
    chats = [_CHAT.validate_json(line) for line in lines]
    return [row for chat in chats for row in _rows(chat, chat.model_dump_json(), split)]


def split_examples(lines: Sequence[str], *, seed: int, share: float, most: int) -> list[Example]:
    """The examples of a file of chats, of which a seeded share validates.

    Chats with the same messages stay on one side.

    Args:
        share: of the different chats. most: of them validate; more would only be kept from
            training, as so many validation rows are looked at.
    """
    chats = [_CHAT.validate_json(line) for line in lines]
    names = [chat.model_dump_json() for chat in chats]
    ranked = sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    held = set(ranked[: min(most, max(1, round(share * len(ranked))))])
    return [
        row
        for chat, name in zip(chats, names, strict=True)
        for row in _rows(chat, name, "valid" if name in held else "train")
    ]


def _rows(chat: Chat, content: str, split: Split) -> list[Example]:
    messages = [turn.message() for turn in chat.messages]
    name = content_id(content)
    found = []
    for index, turn in enumerate(chat.messages):
        if not turn.trains:
            continue
        own = content_id(name, index)
        found.append(
            Example(
                id=own,
                context_id=own,
                documents=[],
                question=next((m.content for m in messages[index::-1] if m.role == "user"), ""),
                answer=Answer(reason="", final=turn.text),
                messages=messages[: index + 1],
                origin=Origin(kind="chat", chunk=name),
                split=split,
            )
        )
    return found
