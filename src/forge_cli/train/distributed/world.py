"""The processes that train together, and what they tell one another (mx.distributed)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from forge_cli.core.errors import ForgeError
from forge_cli.core.ranks import Place
from forge_cli.models.backend import mx
from forge_cli.train.distributed import link as links
from forge_cli.train.distributed.link import Link, Lost

_SMALL = 508  # bytes of a message that one exchange carries
_CHUNK = 1 << 26  # bytes that are sent at once


class World:
    """The ranks of a run. Every rank must make the same calls in the same order.

    Attributes:
        rank: of this process; rank 0 alone writes. size: how many there are.
        told: set where a session failed: rank 0 tells the user.
        here: how many of them run on this machine.
        sent: bytes that this rank has sent for sums so far, by the ring's way of summing.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, group: Any = None, link: Link | None = None
    ) -> None:
        self.rank, self.size, self.sent = rank, size, 0
        self._group, self._link, self.told = group, link, False
        machine = f"{socket.gethostname()} {uuid.getnode()}"
        self.here = self.gather(machine).count(machine)

    def check(self, *, interrupted: bool = False) -> None:
        """Raise `Lost` where another rank is gone.

        Args:
            interrupted: this rank was, too: a launcher stops all when one is gone, and what
                it is gone of should be told; a Ctrl-C that all got needs no explanation.
        """
        fault = self._link.fault if self._link else None
        if fault is None or (interrupted and fault.interrupted):
            return
        if threading.current_thread() is threading.main_thread():
            # The same launcher must not cut the way out, on which a checkpoint is saved.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise fault

    def rest(self) -> bool:
        """Wait, without work for the processor, until rank 0 calls; false: it ended instead.

        Raises:
            Lost: a rank is gone.
        """
        called = self._link.rest() if self._link else True
        self.check()
        return called

    def call(self) -> None:
        """Let the ranks that rest go on."""
        if self._link:
            self._link.call()

    def sum(self, arrays: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """Add up the ranks' float32 arrays; all get the same bits. In one message.

        Raises:
            Lost: a rank is gone.
        """
        if self.size == 1:
            return dict(arrays)
        names = sorted(arrays)
        flat = mx.concatenate([arrays[name].reshape(-1) for name in names])
        self.sent += 2 * (self.size - 1) * flat.nbytes // self.size
        total = self._run(lambda: mx.distributed.all_sum(flat, group=self._group))
        ends, at = [], 0
        for name in names[:-1]:
            at += arrays[name].size
            ends.append(at)
        parts = dict(zip(names, mx.split(total, ends), strict=True))
        # In the order of `arrays`; contiguous as a checkpoint's are.
        found = {k: mx.contiguous(parts[k].reshape(v.shape)) for k, v in arrays.items()}
        mx.eval(found)
        return found

    def gather(self, value: Any) -> list[Any]:
        """What each rank has for `value`, in order of rank. JSON: floats keep every bit.

        Raises:
            Lost: a rank is gone.
        """
        if self.size == 1:
            return [value]
        data = json.dumps(value).encode()
        first = struct.pack("<I", len(data)) + data[:_SMALL].ljust(_SMALL, b"\0")
        heads = self._gather_bytes(first)
        lengths = [struct.unpack("<I", head[:4])[0] for head in heads]
        bodies = [head[4:] for head in heads]
        if (longest := max(lengths)) > _SMALL:
            bodies = self._gather_bytes(data.ljust(longest, b"\0"))
        return [json.loads(b[:length]) for b, length in zip(bodies, lengths, strict=True)]

    def broadcast(self, data: bytes) -> bytes:
        """What rank 0 has for `data`.

        Raises:
            Lost: a rank is gone.
        """
        if self.size == 1:
            return data
        length = self.gather(len(data) if self.rank == 0 else 0)[0]
        parts = []
        for start in range(0, length, _CHUNK):
            stop = min(length, start + _CHUNK)
            own = mx.zeros(stop - start, dtype=mx.uint8)
            if self.rank == 0:
                own = mx.array(np.frombuffer(data[start:stop], dtype=np.uint8))
            parts.append(self._bytes(lambda own=own: self._sum_bytes(own)))  # type: ignore[misc]
        return b"".join(parts)

    def _sum_bytes(self, own: mx.array) -> mx.array:
        return mx.distributed.all_sum(own, group=self._group)

    def _gather_bytes(self, data: bytes) -> list[bytes]:
        own = mx.array(np.frombuffer(data, dtype=np.uint8))
        found = self._bytes(lambda: mx.distributed.all_gather(own, group=self._group))
        return [found[at * len(data) : (at + 1) * len(data)] for at in range(self.size)]

    def _bytes(self, collective: Callable[[], mx.array]) -> bytes:
        return bytes(memoryview(self._run(collective)))  # type: ignore[arg-type]

    def _run(self, collective: Callable[[], mx.array]) -> mx.array:
        self.check()
        try:
            found = collective()
            mx.eval(found)
            return found
        except RuntimeError as error:
            if self._link:
                self._link.wait()
            self.check()
            raise Lost(f"rank {self.rank}: {error}") from None

    @contextmanager
    def session(self) -> Iterator[None]:
        """Tell the others how the work in this block ends: done, failed or interrupted."""
        why: dict[str, Any] = {"failed": "it failed; see what its machine says"}
        try:
            yield
            why = {"done": 1}
        except KeyboardInterrupt:
            why = {"failed": "interrupted", "interrupted": True}
            raise
        except Lost as error:
            why = {"failed": error.message, "hint": error.hint}
            raise
        except ForgeError as error:
            why = {"failed": error.message, "hint": error.hint}
            raise
        finally:
            if self._link:
                fault = self._link.fault
                self.told = fault is None or fault.told
                self._link.leave(**why)


ALONE = World()


def join(place: Place, *, watch: Callable[[], None] = lambda: None) -> World:
    """Meet the other ranks.

    Args:
        watch: called while others are waited for, may raise.

    Raises:
        ForgeError: some did not come in time, or the backend cannot be used.
    """
    link = None
    if place.addresses:  # mpirun has its own watch: it ends all where one ends
        peers = links.meet(place, watch=watch)
        _part_stderr()
        link = Link(place.rank, peers, lambda: _cut(place, {p.fileno() for p in peers.values()}))
    try:
        with _bounded(place.rank):
            group = mx.distributed.init(strict=True, backend=place.backend)
    except RuntimeError as error:
        raise ForgeError(
            f"rank {place.rank}: {place.backend}: {error}", "see mlx.launch --help"
        ) from None
    return World(group.rank(), group.size(), group, link)


@contextmanager
def _bounded(rank: int) -> Iterator[None]:
    """End the process where the block takes too long.

    MLX waits for its peers for ever, holding the interpreter's lock: only another process can
    tell. It goes when its stdin is closed, by the end of the block or of this process.
    """
    script = (
        "import os, select, signal, sys\n"
        "number, seconds, message = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]\n"
        "if not select.select([0], [], [], seconds)[0]:\n"
        "    print(message, file=sys.stderr)\n"
        "    os.kill(number, signal.SIGKILL)\n"
    )
    message = (
        f"error: rank {rank}: the connections were not there within {links.MEETING:.0f} seconds\n"
        "hint: another rank hangs, or the ports of the hosts file are closed; run it again"
    )
    command = [sys.executable, "-c", script, str(os.getpid()), str(links.MEETING), message]
    with subprocess.Popen(command, stdin=subprocess.PIPE):
        yield


def _cut(place: Place, kept: set[int]) -> None:
    """Close this rank's connections of the ring: a sum that waits for a peer then fails.

    Args:
        kept: files that stay open.
    """
    with open(os.devnull, "wb") as nowhere:  # MLX's ring tells of each failed try
        os.dup2(nowhere.fileno(), 2)
    ours = {(socket.gethostbyname(host), port) for host, port in place.addresses}
    for number in sorted(int(entry.name) for entry in Path("/dev/fd").iterdir()):
        if number in kept:
            continue
        with contextlib.suppress(OSError), _socket(number) as one:
            if {one.getsockname()[:2], one.getpeername()[:2]} & ours:
                one.shutdown(socket.SHUT_RDWR)


def _part_stderr() -> None:
    """Give Python's errors their own copy of stderr, so that `_cut` can hush MLX's alone.

    Done before there is a second thread: a line that is half written when the file changes
    would lose its end.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)


def _socket(number: int) -> socket.socket:
    copy = os.dup(number)
    try:
        return socket.socket(fileno=copy)
    except OSError:  # another kind of file
        os.close(copy)
        raise
