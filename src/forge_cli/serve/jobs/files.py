"""Uploaded files in the job store, so that whichever machine takes a job can read them.

Keys: `x:N` is the id of the N-th file, written first; `f:FILE:N` its block N, of whole lines;
`F:FILE` what is known of it, written last and once: so a file is there as a whole or not at all.
Whoever gives up an upload writes `F:FILE` too, as `{}`, so that it can come to no end any more.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from pydantic import BaseModel, ConfigDict

from forge_cli.core.config import Settings
from forge_cli.core.errors import ForgeError
from forge_cli.core.jsonl import dump
from forge_cli.core.records import Example, Preference, Record, Split
from forge_cli.serve.jobs.chats import Kind, examples_of, split_examples
from forge_cli.serve.jobs.job import Conflict
from forge_cli.serve.jobs.rows import Checked, blocks_of
from forge_cli.serve.jobs.store import JobStore

NAME = re.compile(r"file-[0-9a-f]{24}")
_SPLITTING = ("seed", "valid_share", "valid_rows")


class StoredFile(BaseModel):
    """What is known of a file.

    Attributes:
        number: it was the n-th. blocks: how many hold it.
        rows, different: lines with something on them, and how many of them differ.
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


class FileStore:
    """The uploaded files of a job store."""

    def __init__(self, store: JobStore) -> None:
        self.store, self.storage = store, store.storage

    def add(
        self, stream: IO[bytes], checked: Checked, *, filename: str, purpose: str, created: int
    ) -> StoredFile:
        """Keep a file that `check_rows` has read.

        Args:
            stream: at its beginning.

        Raises:
            ForgeError: it came so slowly that it was taken for given up.
        """
        name, number = f"file-{secrets.token_hex(12)}", int(self.storage.incr("files"))
        self.storage.put_data(f"x:{number}", name.encode())
        blocks = 0
        try:
            for text in blocks_of(stream):
                blocks = self.store.append("f", name, text, blocks)
            found = StoredFile(
                id=name, number=number, filename=filename, purpose=purpose,
                created=created, blocks=blocks, **checked.model_dump(),
            )  # fmt: skip
            if not self.storage.put_if_empty(f"F:{name}", found.model_dump_json().encode()):
                raise ForgeError("the upload stood still for too long", "send the file again")
        except BaseException:
            self._forget(number, name)
            raise
        return found

    def find(self, name: str) -> StoredFile | None:
        """The file, if it is there."""
        if not NAME.fullmatch(name):
            return None
        told = self.store.get([f"F:{name}"]).get(f"F:{name}")
        return StoredFile(**told) if told else None

    def all(self) -> list[StoredFile]:
        """Every file, the newest first."""
        return [one for _, _, one in self._every() if one]

    def begun(self) -> dict[int, str]:
        """Number and id of each upload that is under way, or whose server died in it."""
        return {number: name for number, name, one in self._every() if one is None}

    def blocks(self, name: str, start: int = 0) -> int:
        """How many blocks of a file there are, of which `start` were there."""
        while self.storage.has_data_for_key(f"f:{name}:{start}"):
            start += 1
        return start

    def give_up(self, number: int, name: str) -> bool:
        """Remove what there is of an upload, for good; False if it has come to its end."""
        if not self.storage.put_if_empty(f"F:{name}", b"{}") and self.find(name):
            return False
        self._drop_blocks(name)
        self.storage.pop_data(f"x:{number}")
        return True

    def _every(self) -> list[tuple[int, str, StoredFile | None]]:
        """The newest first; None: there is no such file yet, or any more."""
        keys = [f"x:{number}" for number in range(int(self.storage.incr("files", 0)), 0, -1)]
        names = {int(key[2:]): name.decode() for key, name in self.store.read(keys).items()}
        told = self.store.get(f"F:{name}" for name in names.values())
        return [
            (number, names[number], StoredFile(**one) if (one := told.get(f"F:{name}")) else None)
            for number, name in sorted(names.items(), reverse=True)
        ]

    def content(self, found: StoredFile) -> Iterator[str]:
        """The file, a block at a time."""
        for number in range(found.blocks):
            for block in self.store.read([f"f:{found.id}:{number}"]).values():
                yield block.decode()

    def remove(self, found: StoredFile) -> None:
        """Forget a file.

        Raises:
            Conflict: a job that is not over needs it.
        """
        for job in self.store.open_jobs():
            if found.id in (job.spec.source, job.spec.validation):
                raise Conflict(f"{found.id}: {job.id} needs it, which is {job.state}")
        self._forget(found.number, found.id)

    def _forget(self, number: int, name: str) -> None:
        # In this order whoever is killed in it leaves an upload that was begun, and is found so.
        self.storage.pop_data(f"F:{name}")
        self._drop_blocks(name)
        self.storage.pop_data(f"x:{number}")

    def _drop_blocks(self, name: str) -> None:
        # From the last one on, so that those that stay can be counted.
        for number in reversed(range(self.blocks(name))):
            self.storage.pop_data(f"f:{name}:{number}")


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
