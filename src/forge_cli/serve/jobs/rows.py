"""Reading an upload: whether each line is a row, and its text in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from pydantic import BaseModel

from forge_cli.core.errors import UsageError
from forge_cli.serve.jobs.chats import Kind, check_line

LINE = 1 << 20  # bytes of the longest line
_BLOCK = 256 << 10  # bytes after which a block ends with its line
_EXPANDED = 256 << 20  # characters that a file may come to as rows
_BOM = b"\xef\xbb\xbf"


class Checked(BaseModel):
    """What reading a file showed."""

    bytes: int
    rows: int
    different: int
    kind: Kind


def check_rows(stream: IO[bytes], most_rows: int) -> Checked:
    """Read a file through, without keeping it.

    Args:
        stream: at its beginning.

    Raises:
        UsageError: a line is no row, rows are of two kinds, or there are too many.
    """
    rows = size = cost = 0
    kind: Kind | None = None
    seen: set[int] = set()
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


def blocks_of(stream: IO[bytes]) -> Iterator[str]:
    """The text of a file that `check_rows` has read, in blocks of whole lines.

    Args:
        stream: at its beginning.
    """
    while block := stream.read(_BLOCK):
        yield (block + stream.readline()).decode()
