"""The records that stages exchange, one per line of JSONL.

`docs/records.md` is generated from this file.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Split = Literal["train", "valid", "test"]


class Record(BaseModel):
    """The base of all records: unknown fields are errors, and records do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Chunk(Record):
    """A contiguous byte range of one file; a file's chunks cover it without overlap."""

    record: Literal["chunk"] = "chunk"
    version: Literal[1] = 1
    id: str = Field(description="content hash of path, range and text")
    repo: str = Field(description="name of the repository")
    path: str = Field(description="path in the repository, with /")
    language: str
    start_byte: int
    end_byte: int = Field(description="one past the last byte")
    start_line: int = Field(description="from 1")
    end_line: int = Field(description="the last line, from 1")
    kind: str = Field(
        description="function, method, class, implementation, namespace, type, section, cell, "
        "output (of a cell), module or text"
    )
    symbol: str | None = Field(default=None, description="dotted name of the definition")
    signature: str | None = None
    docstring: str | None = None
    header: str = Field(default="", description="enclosing class and the imports that are used")
    text: str = Field(description="exactly the file's bytes start_byte..end_byte")
    part: int = 1
    parts: int = 1
    calls: list[str] = Field(default_factory=list, description="names called in the text")
    called_by: list[str] = Field(default_factory=list, description="symbols that call this one")
    tests: list[str] = Field(default_factory=list, description="test symbols that use this one")
    commit: str | None = Field(default=None, description="the last commit that touched the file")
    committed: str | None = Field(default=None, description="when that was, ISO 8601")
    history: list[str] = Field(
        default_factory=list, description="subjects of the file's last commits, newest first"
    )


class Document(Record):
    """A document as it is shown in a context."""

    id: str
    path: str
    symbol: str | None = None
    text: str
    oracle: bool = Field(description="holds the answer to this example's question")


class Quote(Record):
    """A span that stands verbatim in the document named."""

    document: str
    text: str


class Answer(Record):
    """A RAFT answer: why, the evidence, and the answer itself."""

    reason: str
    quotes: list[Quote] = Field(default_factory=list)
    final: str


class Message(Record):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Origin(Record):
    """Where an example comes from."""

    kind: str = Field(description="question kind: purpose, signature, default …")
    chunk: str = Field(description="id of the chunk that holds the answer")
    path: str = Field(default="", description="the chunk's file, which decides the split")
    teacher: str | None = None
    committed: str | None = Field(default=None, description="when the chunk last changed")


class Example(Record):
    """A RAFT row: documents, a question, a quoted answer, and the chat that trains."""

    record: Literal["example"] = "example"
    version: Literal[1] = 1
    id: str
    context_id: str = Field(description="rows that share byte-identical documents in one order")
    documents: list[Document]
    question: str
    reworded: str | None = Field(
        default=None, description="the question in a wording that no row trains on"
    )
    answer: Answer
    messages: list[Message]
    origin: Origin
    split: Split | None = None


class Preference(Record):
    """A pair for DPO."""

    record: Literal["preference"] = "preference"
    version: Literal[1] = 1
    messages: list[Message]
    chosen: str
    rejected: str
    origin: Origin
    split: Split | None = None


def as_example(pair: Preference) -> Example:
    """The chosen answer as a row, of which only the chat and the origin are known."""
    chosen = Message(role="assistant", content=pair.chosen)
    name = content_id(pair.messages[-1].content, pair.chosen)
    return Example(
        id=name,
        context_id=name,
        documents=[],
        question=pair.messages[-1].content,
        answer=Answer(reason="", final=pair.chosen),
        messages=[*pair.messages, chosen],
        origin=pair.origin,
        split=pair.split,
    )


class Verdict(Record):
    """Why a record, a file or a byte range was rejected."""

    record: Literal["verdict"] = "verdict"
    version: Literal[1] = 1
    id: str
    check: str
    reason: str
    path: str | None = None
    start_byte: int | None = None
    end_byte: int | None = None


class Run(Record):
    """A run directory and what has been measured about it."""

    record: Literal["run"] = "run"
    version: Literal[1] = 1
    path: str
    model: str
    metrics: dict[str, Any] = Field(default_factory=dict)
    files: list[str] = Field(default_factory=list, description="what was exported or deployed")


class End(Record):
    """The last line of a pipe: what came before is whole."""

    record: Literal["end"] = "end"
    version: Literal[1] = 1
    count: int
    sha256: str


AnyRecord = Annotated[
    Chunk | Example | Preference | Verdict | Run | End, Field(discriminator="record")
]
ANY: TypeAdapter[Chunk | Example | Preference | Verdict | Run | End] = TypeAdapter(AnyRecord)


def content_id(*parts: str | int) -> str:
    """16 hex digits that name the content `parts`; equal content has an equal id."""
    digest = hashlib.sha256("\x1f".join(str(p) for p in parts).encode())
    return digest.hexdigest()[:16]
