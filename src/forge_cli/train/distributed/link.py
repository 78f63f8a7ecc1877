"""Connections between rank 0 and the others that tell who lives, who failed and why.

mx.distributed blocks for ever on a peer that does not come, or that hangs; this does not.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.ranks import Place

# Seconds to wait for the others at the start, and for rank 0 to end before those that failed.
MEETING = 60.0
PARTING = 20.0
# A rank without a sign of life for so many beats is lost. Counted in beats, not by a clock:
# a machine that was asleep itself has missed one.
BEAT = 1.0
MISSED = 60
_AGAIN = "run the same command again: it goes on from the last checkpoint"


class Lost(ForgeError):
    """Another rank failed or is gone.

    Attributes:
        told: that rank, or rank 0, tells the user itself.
        interrupted: it was by Ctrl-C or SIGTERM.
    """

    def __init__(
        self, message: str, hint: str = _AGAIN, *, told: bool = False, interrupted: bool = False
    ) -> None:
        super().__init__(message, hint)
        self.told, self.interrupted = told, interrupted


class Link:
    """A star of TCP connections: rank 0 in the middle, a thread on each that watches.

    Args:
        peers: sockets by rank: all others on rank 0, rank 0 alone on the others.
        cut: called once when `fault` is set: wakes a collective that would hang.

    Attributes:
        fault: the first rank that was lost, and why. done: rank 0 ended well.
    """

    def __init__(
        self, rank: int, peers: Mapping[int, socket.socket], cut: Callable[[], None]
    ) -> None:
        self.rank, self.done = rank, False
        self.fault: Lost | None = None
        self._cut, self._peers, self._finished = cut, dict(peers), set[int]()
        self._silent = dict.fromkeys(peers, 0)
        self._buffers = dict.fromkeys(peers, b"")
        self._ended, self._lost, self._called = (threading.Event() for _ in range(3))
        self._selector = selectors.DefaultSelector()
        for number, peer in self._peers.items():
            peer.setblocking(False)
            self._selector.register(peer, selectors.EVENT_READ, number)
        threading.Thread(target=self._watch, name="forge-link", daemon=True).start()

    def wait(self, seconds: float = 3.0) -> None:
        """Wait until it is known why a collective failed: the ring notices first, but not why."""
        self._lost.wait(seconds)

    def rest(self) -> bool:
        """Wait for rank 0's word, which may take hours; whether there is something to do."""
        while not self._called.wait(1.0):  # not for ever: Ctrl-C must get through
            pass
        return not self.done

    def call(self) -> None:
        """Let the others, which rest, go on."""
        for number in list(self._peers):
            self._send(number, {"call": 1})

    def leave(self, **why: Any) -> None:
        """Tell the others that this rank ends: done, or failed with a message."""
        for number in list(self._peers):
            self._send(number, why)
        heard = self.fault is None or self.fault.told
        if self.rank and "failed" in why and heard:
            # Rank 0 saves a checkpoint and tells the user; a launcher that sees this process
            # end would stop it before it has.
            self._ended.wait(PARTING)
        if self.rank == 0:
            self._close()

    def _close(self) -> None:
        self._ended.set()
        for peer in self._peers.values():
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def _send(self, number: int, message: Mapping[str, Any]) -> None:
        # A full buffer or a closed connection shows in what is received.
        with contextlib.suppress(OSError):
            self._peers[number].send(json.dumps(message).encode() + b"\n")

    def _watch(self) -> None:
        due = time.monotonic() + BEAT
        while not self._ended.is_set() and self._selector.get_map():
            for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
                self._receive(key.data)
            if time.monotonic() < due:
                continue
            due = time.monotonic() + BEAT
            for number in list(self._silent):
                self._send(number, {"beat": 1})
                self._silent[number] += 1
                if self._silent[number] == MISSED and number not in self._finished:
                    self._lose(f"rank {number} has not answered for {MISSED * BEAT:.0f} seconds")

    def _receive(self, number: int) -> None:
        try:
            data = self._peers[number].recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(self._peers[number])
            del self._silent[number]
            if number not in self._finished:
                self._lose(f"rank {number} is gone: its process or its connection ended")
            if self.rank:
                self._ended.set()
            return
        self._silent[number] = 0
        *lines, self._buffers[number] = (self._buffers[number] + data).split(b"\n")
        for line in lines:
            self._hear(number, json.loads(line))

    def _hear(self, number: int, message: Mapping[str, Any]) -> None:
        if "done" in message:
            self._finished.add(number)
            if number == 0:
                self.done = True
                self._called.set()
        elif "call" in message:
            self._called.set()
        elif "failed" in message:
            self._finished.add(number)
            self._lose(
                f"rank {number}: {message['failed']}",
                message.get("hint") or _AGAIN,
                told=number == 0,
                interrupted=bool(message.get("interrupted")),
            )

    def _lose(self, message: str, hint: str = _AGAIN, **how: bool) -> None:
        if self.fault is None:
            self.fault = Lost(message, hint, **how)
            self._lost.set()
            self._called.set()
            self._cut()


def meet(
    place: Place, *, patience: float = 0.0, watch: Callable[[], None] = lambda: None
) -> dict[int, socket.socket]:
    """Connect all ranks with rank 0, at the address that its ring is to have afterwards.

    Args:
        patience: seconds to wait (0: `MEETING`). watch: called while it waits, may raise.

    Raises:
        ForgeError: some did not come, or an address is taken.
    """
    patience = patience or MEETING
    until = time.monotonic() + patience
    _must_be_free(place)
    if place.rank:
        return {0: _call(place, until, patience)}
    host, port = place.addresses[0]
    with socket.create_server((host, port), reuse_port=False) as server:
        server.settimeout(0.5)
        found: dict[int, socket.socket] = {}
        while len(found) < place.size - 1:
            watch()
            missing = sorted(set(range(1, place.size)) - set(found))
            if time.monotonic() > until:
                raise ForgeError(
                    f"{_ranks(missing)} did not come within {patience:.0f} seconds",
                    "see what their machines say; each needs Forge, and a way to "
                    f"{host} port {port}",
                )
            with contextlib.suppress(TimeoutError):
                peer, _ = server.accept()
                number = _hello(peer)
                if number in missing:
                    found[number] = peer
    for peer in found.values():  # the address is free again: now the ring may take it
        peer.sendall(b"go\n")
    return found


def _hello(peer: socket.socket) -> int:
    """The rank that calls; -1: someone else."""
    peer.settimeout(5)
    with contextlib.suppress(OSError, ValueError):
        return int(_line(peer).removeprefix(b"forge "))
    peer.close()
    return -1


def _line(peer: socket.socket) -> bytes:
    """A short line, byte by byte: what follows it belongs to others."""
    got = b""
    while not got.endswith(b"\n") and len(got) < 64 and (byte := peer.recv(1)):
        got += byte
    return got.strip()


def _call(place: Place, until: float, patience: float) -> socket.socket:
    host, port = place.addresses[0]
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            peer = socket.create_connection((host, port), timeout=5)
            peer.sendall(f"forge {place.rank}\n".encode())
            peer.settimeout(max(1.0, until - time.monotonic()))
            if _line(peer) == b"go":
                return peer
        time.sleep(0.2)
    raise ForgeError(
        f"rank 0 at {host} port {port} did not answer within {patience:.0f} seconds",
        "see what its machine says; the ports of the hosts file must be open",
    )


def _must_be_free(place: Place) -> None:
    if place.backend != "ring":
        return
    host, port = place.addresses[place.rank]
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise ForgeError(
            f"rank {place.rank} cannot listen at {host} port {port}: {error.strerror}",
            "does another run use it? mlx.launch takes another with --starting-port",
        ) from None


def _ranks(numbers: Sequence[int]) -> str:
    return f"rank{'s' * (len(numbers) != 1)} {', '.join(map(str, numbers))}"
