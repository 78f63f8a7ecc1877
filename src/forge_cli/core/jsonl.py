"""JSONL in and out: files by atomic rename, pipes closed by an `end` record."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import ValidationError

from forge_cli.core.errors import BadRecord, ForgeError, UsageError
from forge_cli.core.records import ANY, End, Record

R = TypeVar("R", bound=Record)

_DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO}


def read_records(source: str | Path, kind: type[R], *, need_end: bool = True) -> Iterator[R]:
    """Yield the records of a file, or of stdin when `source` is "-".

    A pipe is read whole and checked against its `end` record before anything is
    yielded, so that a dead upstream is never taken for a short one.

    Raises:
        BadRecord: a line is not JSON or not a `kind` (with file and line), or a
            pipe ended without its `end` record.
    """
    if str(source) == "-":
        piped = not stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
        yield from _whole(sys.stdin.buffer, "<stdin>", kind, need_end and piped)
        return
    try:
        with open(source, "rb") as stream:
            yield from _whole(stream, str(source), kind, False)
    except FileNotFoundError:
        raise UsageError(f"{source}: no such file", "give a JSONL file, or - for stdin") from None
    except IsADirectoryError:
        raise UsageError(f"{source}: is a directory", "give a JSONL file, or -") from None


def _whole(stream: IO[bytes], name: str, kind: type[R], need_end: bool) -> Iterator[R]:
    records: list[R] = []
    digest = hashlib.sha256()
    ended = False
    for number, line in enumerate(stream, 1):
        where = f"{name}:{number}"
        if ended:
            raise BadRecord(f"{where}: a record after the end record", "send one stream at a time")
        if not line.strip():
            continue
        record = _parse(line, where)
        if isinstance(record, End):
            _check_end(record, len(records), digest.hexdigest(), where)
            ended = True
        elif isinstance(record, kind):
            records.append(record)
            digest.update(line)
        else:
            want, got = kind.__name__.lower(), getattr(record, "record", "?")
            raise BadRecord(
                f"{where}: expected a {want} record, found {got}",
                f"this command reads {want} records; check the stage before it",
            )
    if need_end and not ended:
        raise BadRecord(
            f"{name}: the pipe ended without its end record after {len(records)} records",
            "the stage before this one failed; mend it, or use --no-end for a foreign tool",
        )
    yield from records


def _parse(line: bytes, where: str) -> Record:
    try:
        return ANY.validate_json(line)
    except ValidationError as error:
        kind = error.errors(include_url=False)[0]["type"]
        if kind == "union_tag_not_found":
            raise BadRecord(
                f"{where}: no record of Forge: it has no field `record`",
                "rows of forge raft --format completion or reference are for other tools; "
                "make them with --format messages",
            ) from None
        raise BadRecord(f"{where}: {_first_fault(error)}", "mend or delete that line") from None


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    # The first element of `loc` is the discriminator's tag: not a field.
    place = ".".join(str(part) for part in fault["loc"][1:])
    return f"{place}: {fault['msg']}" if place else str(fault["msg"])


def _check_end(end: End, count: int, sha256: str, where: str) -> None:
    if (end.count, end.sha256) != (count, sha256):
        raise BadRecord(
            f"{where}: the end record says {end.count} records, {count} arrived, or bytes differ",
            "run the stage before this one again",
        )


def dump(record: Record) -> bytes:
    """One line of UTF-8 JSON with its newline."""
    return record.model_dump_json().encode() + b"\n"


def write_records(
    records: Iterable[Record | bytes], target: str | Path, *, end: bool = True
) -> int:
    """Write records to a file (atomically) or to stdout ("-"); return how many.

    Bytes are blocks of whole lines, as `dump` makes them.

    stdout gets an `end` record when it is a pipe and `end` is true.
    """
    if str(target) != "-":
        with atomic_file(Path(target)) as stream:
            return _write(records, stream, False)
    out = sys.stdout.buffer
    piped = not stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode) and not sys.stdout.isatty()
    count = _write(records, out, end and piped)
    out.flush()
    return count


def _write(records: Iterable[Record | bytes], stream: IO[bytes], end: bool) -> int:
    digest = hashlib.sha256()
    count = 0
    for record in records:
        lines = record if isinstance(record, bytes) else dump(record)
        stream.write(lines)
        count += lines.count(b"\n")
        if end:
            digest.update(lines)
    if end:
        stream.write(dump(End(count=count, sha256=digest.hexdigest())))
    return count


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary stream that becomes `path` only when the block ends without an error.

    A device or a named pipe is written to as it stands: a rename would put a file in its place.

    Raises:
        ForgeError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    if path.exists() and not path.is_file():
        with _direct(path) as stream:
            yield stream
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _disk_error(path, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        if error.errno in _DISK_FAULTS:
            raise _disk_error(path, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _direct(path: Path) -> Iterator[IO[bytes]]:
    try:
        with open(path, "wb") as stream:
            yield stream
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _disk_error(path, error) from error


def _disk_error(path: Path, error: OSError) -> ForgeError:
    return ForgeError(
        f"{path}: cannot write: {error.strerror or error}",
        "free some space or choose another place; what was there before is untouched",
    )


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_file(path) as stream:
        stream.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")
