"""Starts that were computed once: an SVD of every layer costs more than to read its result.

One safetensors file a layer, named by a hash of all that decides its content: the weight's
own bytes (so no other model and no newer version of a file can be mistaken for it), the
method, rank, scale, SVD, rounds and quantiser. Files are written by atomic rename and carry
a hash of their arrays; a damaged one is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from forge_cli.core.errors import ForgeError
from forge_cli.models.adapters import save_arrays
from forge_cli.models.backend import mx
from forge_cli.train.inits import Start

# Raise this when a method computes something else.
_VERSION = 1
_LIMIT = 2 << 30


class StartCache:
    """Starts in `folder`, at most about `limit` bytes of them; None: nothing is kept."""

    def __init__(self, folder: Path | None, *, limit: int = _LIMIT) -> None:
        self.folder = folder
        self.limit = limit
        self.hits = 0

    def get(self, weight: mx.array, compute: Callable[[], Start], **what: Any) -> Start:
        """The start of W [out, in] under the settings `what`; computed where it is not known."""
        if self.folder is None:
            return compute()
        file = self.folder / f"{_key(weight, what)}.safetensors"
        if (found := _read(file)) is not None:
            self.hits += 1
            return found
        start = compute()
        try:
            _write(file, start)
        except ForgeError:  # a disk that is full or read-only costs time only
            self.folder = None
        return start

    def trim(self) -> None:
        """Delete the files that were not used for longest, until the rest fit the limit."""
        if self.folder is None or not self.folder.is_dir():
            return
        files = [(file.stat(), file) for file in self.folder.glob("*.safetensors")]
        total = sum(stat.st_size for stat, _ in files)
        for stat, file in sorted(files, key=lambda pair: pair[0].st_mtime):
            if total <= self.limit:
                break
            file.unlink(missing_ok=True)
            total -= stat.st_size


def _key(weight: mx.array, what: dict[str, Any]) -> str:
    told = {"version": _VERSION, "dtype": str(weight.dtype), "shape": weight.shape, **what}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    digest.update(_bytes(weight))
    return digest.hexdigest()[:32]


def _bytes(array: mx.array) -> memoryview:
    return memoryview(cast(bytes, mx.contiguous(array).view(mx.uint8)))


def _digest(arrays: dict[str, mx.array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].shape}".encode())
        digest.update(_bytes(arrays[name]))
    return digest.hexdigest()


def _write(file: Path, start: Start) -> None:
    arrays = {"A": start.A, "B": start.B}
    # What trains is often what was taken out: stored once.
    same = start.A0 is start.A and start.B0 is start.B
    if start.A0 is not None and start.B0 is not None and not same:
        arrays |= {"A0": start.A0, "B0": start.B0}
    save_arrays(file, arrays, {"sha256": _digest(arrays), "taken": "A, B" if same else "A0, B0"})


def _read(file: Path) -> Start | None:
    if not file.is_file():
        return None
    try:
        loaded = mx.load(str(file), return_metadata=True)
        arrays, metadata = cast(tuple[dict[str, mx.array], dict[str, str]], loaded)
        if metadata["sha256"] != _digest(arrays):
            return None
        prefix = "" if metadata["taken"] == "A, B" else "0"
        start = Start(arrays["A"], arrays["B"], arrays.get(f"A{prefix}"), arrays.get(f"B{prefix}"))
    except (OSError, RuntimeError, ValueError, KeyError):
        return None
    with contextlib.suppress(OSError):
        file.touch()  # so that `trim` knows that it is in use
    return start
