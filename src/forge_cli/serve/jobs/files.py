"""Uploaded files in the job store, so that whichever machine takes a job can read them.

Keys: `f:FILE:N` is block N, of whole lines; `F:FILE` what is known of it, written last, so that a
file is there as a whole or not at all; `x:N` the id of the N-th file.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from pydantic import BaseModel, ConfigDict

from forge_cli.core.config import Settings
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.jsonl import dump
from forge_cli.core.records import Example, Preference, Record, Split
from forge_cli.serve.jobs.chats import Kind, check_line, examples_of, split_examples
from forge_cli.serve.jobs.job import Conflict
from forge_cli.serve.jobs.store import JobStore

NAME = re.compile(r"file-[0-9a-f]{24}")
LINE = 1 << 20  # bytes of the longest line
_BLOCK = 256 << 10  # bytes after which a new block begins
_EXPANDED = 256 << 20  # characters that a file may come to as rows
_SPLITTING = ("seed", "valid_share", "valid_rows")
_BOM = b"\xef\xbb\xbf"


class StoredFile(BaseModel):
    """What is known of a file.

    Attributes:
        number: it was the n-th. blocks: how many hold it.
        rows, chats: lines with something on them, and how many of them differ.
        kind: of its rows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    number: int
    filename: str
    purpose: str
    created: int
    bytes: int
    blocks: int
    rows: int
    different: int
    kind: Kind


class Checked(BaseModel):
    """What reading a file showed."""

    bytes: int
    rows: int
    different: int
    kind: Kind


def check_rows(stream: IO[bytes], most_rows: int) -> Checked:
    """Read a file through, without keeping it.

    Raises:
        UsageError: a line is no row, rows are of two kinds, or there are too many.
    """
    rows = size = cost = 0
    kind: Kind | None = None
    seen: set[int] = set()
    stream.seek(0)
    for number, line in enumerate(_lines(stream), 1):
        size += len(line)
        told = line.removeprefix(_BOM) if number == 1 else line
        if not told.strip():
            continue
        rows += 1
        if rows > most_rows:
            raise UsageError(f"more than {most_rows} rows", "split the file")
        own, more = check_line(_utf8(told, number), number)
        if kind not in (None, own):
            raise UsageError(f"line {number}: {own} after {kind}", "one kind of row a file")
        kind, cost = own, cost + more
        if cost > _EXPANDED:
            raise UsageError(
                f"line {number}: the rows so far, one for each turn of an assistant, are over "
                f"{_EXPANDED >> 20} million characters",
                "cut long chats, or give all but the last turn the weight 0",
            )
        seen.add(hash(told))
    if kind is None:
        raise UsageError("no rows", "write one JSON object a line")
    return Checked(bytes=size, rows=rows, different=len(seen), kind=kind)


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    number = 0
    while line := stream.readline(LINE + 1):
        number += 1
        if len(line) > LINE:
            raise UsageError(f"line {number}: longer than {LINE >> 10} KB", "shorten it")
        yield line


def _utf8(line: bytes, number: int) -> bytes:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"line {number}: not UTF-8 at byte {error.start}", "save the file as UTF-8"
        ) from None
    return line


class FileStore:
    """The uploaded files of a job store."""

    def __init__(self, store: JobStore) -> None:
        self.store, self.storage = store, store.storage

    def add(
        self, stream: IO[bytes], checked: Checked, *, filename: str, purpose: str, created: int
    ) -> StoredFile:
        """Keep a file that `check_rows` has read."""
        name = f"file-{secrets.token_hex(12)}"
        blocks = 0
        try:
            for text in _blocks(stream):
                blocks = self.store.append("f", name, text, blocks)
        except BaseException:
            self._drop_blocks(name, blocks)
            raise
        found = StoredFile(
            id=name, number=self.storage.incr("files"), filename=filename, purpose=purpose,
            created=created, blocks=blocks, **checked.model_dump(),
        )  # fmt: skip
        self.storage.put_data(f"x:{found.number}", name.encode())
        self.store.put(f"F:{name}", found.model_dump())
        return found

    def find(self, name: str) -> StoredFile | None:
        """The file, if it is there."""
        if not NAME.fullmatch(name):
            return None
        told = self.store.get([f"F:{name}"]).get(f"F:{name}")
        return StoredFile(**told) if told else None

    def all(self) -> list[StoredFile]:
        """Every file, the newest first."""
        count = int(self.storage.incr("files", 0))
        names = self._texts([f"x:{number}" for number in range(count, 0, -1)])
        keys = [f"F:{name}" for name in names]
        told = self.store.get(keys)
        return [StoredFile(**told[key]) for key in keys if key in told]

    def content(self, found: StoredFile) -> Iterator[str]:
        """The file, a block at a time."""
        for number in range(found.blocks):
            yield from self._texts([f"f:{found.id}:{number}"])

    def remove(self, found: StoredFile) -> None:
        """Forget a file.

        Raises:
            Conflict: a job that is not over needs it.
        """
        for job in self.store.open_jobs():
            if found.id in (job.spec.source, job.spec.validation):
                raise Conflict(f"{found.id}: {job.id} needs it, which is {job.state}")
        self.storage.pop_data(f"F:{found.id}")
        self.storage.pop_data(f"x:{found.number}")
        self._drop_blocks(found.id, found.blocks)

    def _drop_blocks(self, name: str, count: int) -> None:
        for number in range(count):
            self.storage.pop_data(f"f:{name}:{number}")

    def _texts(self, keys: Iterable[str]) -> list[str]:
        """What of `keys` there is, in their order."""
        wanted = list(keys)
        found: list[str] = []
        for start in range(0, len(wanted), 400):
            some = wanted[start : start + 400]
            read = {
                key.decode() if isinstance(key, bytes) else key: bytes(value).decode()
                for key, value in self.storage.peek_many(some).items()
            }
            found += [read[key] for key in some if key in read]
        return found


def rows_to_train(
    source: str, validation: str, options: Mapping[str, Any], store: JobStore
) -> bytes:
    """The records that a job trains on, as JSONL: of chats examples, of records what they are.

    Args:
        validation: the id of a file to validate on; empty: what the records say, and of chats a
            seeded share.
        options: the job's, of which seed, valid_share and valid_rows count here.

    Raises:
        ForgeError: a file is gone.
    """
    kind, lines = _read(source, store)
    if validation:
        return _dumped(_all(kind, lines, "train")) + _dumped(
            _all(*_read(validation, store), "valid")
        )
    if kind != "chat":
        return "".join(lines).encode()
    s = {name: options.get(name, Settings.model_fields[name].default) for name in _SPLITTING}
    return _dumped(
        split_examples(lines, seed=s["seed"], share=s["valid_share"], most=s["valid_rows"])
    )


def _read(name: str, store: JobStore) -> tuple[Kind, list[str]]:
    files = FileStore(store)
    found = files.find(name)
    if found is None:
        raise ForgeError(f"{name}: no such file", "upload it again: POST /v1/files")
    # Not splitlines, for which a line ends at more than a newline.
    text = "".join(files.content(found)).removeprefix("\ufeff")
    return found.kind, [f"{line}\n" for line in text.split("\n") if line.strip()]


def _all(kind: Kind, lines: list[str], split: Split) -> Sequence[Example | Preference]:
    if kind == "chat":
        return examples_of(lines, split)
    record = Example if kind == "example" else Preference
    return [record.model_validate_json(line).model_copy(update={"split": split}) for line in lines]


def _dumped(rows: Iterable[Record]) -> bytes:
    return b"".join(dump(row) for row in rows)


def _blocks(stream: IO[bytes]) -> Iterator[str]:
    stream.seek(0)
    block = b""
    for line in _lines(stream):
        block += line
        if len(block) >= _BLOCK:
            yield block.decode()
            block = b""
    if block:
        yield block.decode()
