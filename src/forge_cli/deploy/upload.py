"""A file's way to the server: known already, or sent whole, tried again where the line breaks."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.deploy.address import is_loopback
from forge_cli.deploy.connection import BrokenOff
from forge_cli.deploy.ollama import MB, Server

_TRIES, _WAIT = 3, 2.0  # seconds before the second try, twice as many before the third
_ROOM = 1 << 28  # bytes that stay free beside the file


def digest_of(gguf: Path, reporter: Reporter) -> str:
    """`sha256:…` of a file.

    Raises:
        ForgeError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with (
            open(gguf, "rb") as stream,
            reporter.task("hash", total=gguf.stat().st_size / MB) as task,
        ):
            while block := stream.read(1 << 20):
                digest.update(block)
                task.advance(len(block) / MB)
    except OSError as error:
        raise _unreadable(gguf, error) from None
    return f"sha256:{digest.hexdigest()}"


def send(
    server: Server,
    gguf: Path,
    digest: str,
    reporter: Reporter,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Bring the file to the server; False if it was there.

    Ollama takes a blob in one piece only, so a broken one begins again; one that arrived is
    asked for first and never sent twice.

    Raises:
        ForgeError: refused, or broken off three times; no room on the server's disk.
    """
    for left in reversed(range(_TRIES)):
        if server.has_blob(digest):
            reporter.note("the server has this file: nothing to upload")
            return left < _TRIES - 1
        check_room(server.url, gguf.stat().st_size)
        try:
            with reporter.task("upload", total=gguf.stat().st_size / MB) as task:
                server.upload(gguf, digest, task)
            return True
        except BrokenOff as error:
            if not left:
                raise
            wait = _WAIT * 2 ** (_TRIES - 1 - left)
            reporter.warn(f"{error.message}; trying again in {wait:.0f} s")
            sleep(wait)
        except OSError as error:
            raise _unreadable(gguf, error) from None
    raise AssertionError("the last try returns or raises")


def check_room(url: str, size: int, folder: Path | None = None) -> None:
    """Raise ForgeError where the disk of a server on this machine has no room for a file.

    Args:
        size: bytes. folder: where the server keeps its models; found out if None.
    """
    folder = folder or models_folder()
    if folder is None or not is_loopback(url):
        return  # the server alone knows; it says so in the middle of the upload
    free = shutil.disk_usage(folder).free
    if free < size + _ROOM:
        raise ForgeError(
            f"{folder}: {free / 1e9:.1f} GB are free, the model needs {(size + _ROOM) / 1e9:.1f}",
            "make room: ollama list, then ollama rm NAME",
        )


def models_folder() -> Path | None:
    """Where an Ollama of this machine keeps its models; None if there is no such folder."""
    places = [
        Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models"),
        Path("/usr/share/ollama/.ollama/models"),  # of the service on Linux
    ]
    return next((place for place in places if place.is_dir()), None)


def _unreadable(gguf: Path, error: OSError) -> ForgeError:
    return ForgeError(f"{gguf}: cannot be read: {error.strerror}", "check the file")


__all__ = ["check_room", "digest_of", "models_folder", "send"]
