"""Read what a process writes, and stop it where it goes beyond a limit."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from forge_cli.evaluate.sandbox.limits import Limits

_PERIOD = 0.05
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Watched:
    """What was seen: both outputs, cut; seconds by the clock; the limit that was passed or ""."""

    stdout: str
    stderr: str
    seconds: float
    why: str


def watch(
    process: subprocess.Popen[bytes],
    limits: Limits,
    memory: Callable[[], int],
    stop: Callable[[], None],
) -> Watched:
    """Wait for a process to end, or for a limit, and see that nothing is left of it.

    Args:
        process: with pipes as its outputs.
        memory: bytes that it and its children hold now.
        stop: kills it and all its children, and returns when they are gone; it is called
            whatever happens, also when they have ended.
    """
    assert process.stdout is not None and process.stderr is not None
    start = time.monotonic()
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    why = ""
    try:
        with selectors.DefaultSelector() as selector:
            for stream, data in kept.items():
                selector.register(stream, selectors.EVENT_READ, data)
            looked = start
            while not why and process.poll() is None:
                _round(process, selector)
                now = time.monotonic()
                if _beyond(kept, limits):
                    why = "output"
                elif now - start > limits.seconds:
                    why = "time"
                elif now - looked > _PERIOD:
                    looked = now
                    why = "memory" if memory() > limits.memory_bytes else ""
    finally:
        stop()
    seconds = time.monotonic() - start
    for stream, data in kept.items():
        with stream:
            # Not to wait for a writer that got away; there is none where there are namespaces.
            os.set_blocking(stream.fileno(), False)
            while len(data) <= limits.output_bytes and _more(stream.fileno(), data):
                pass
    if not why and _beyond(kept, limits):
        why = "output"
    out, err = (bytes(d[: limits.output_bytes]).decode("utf-8", "replace") for d in kept.values())
    return Watched(out, err, seconds, why)


def _round(process: subprocess.Popen[bytes], selector: selectors.BaseSelector) -> None:
    """Take what has been written, or wait a moment."""
    if not selector.get_map():
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PERIOD)
        return
    for key, _ in selector.select(_PERIOD):
        if not _more(key.fd, key.data):
            selector.unregister(key.fileobj)


def _more(file: int, data: bytearray) -> bool:
    """Read once; False at the end, or where there is nothing to read now."""
    try:
        found = os.read(file, _CHUNK)
    except BlockingIOError:
        return False
    data += found
    return bool(found)


def _beyond(kept: dict[IO[bytes], bytearray], limits: Limits) -> bool:
    return any(len(data) > limits.output_bytes for data in kept.values())
