"""`--hosts`: start the other ranks of a run, here or over ssh; this process is rank 0.

mlx.launch does the same for any program. Started from here, rank 0 keeps the terminal, stdin
and its own exit code.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.ranks import find_place

# The port of rank n on another machine is this + n, as with mlx.launch.
_PORT = 32323
_LOOPBACK = "127."
# Seconds that the others have to end once rank 0 did, well or not.
_PATIENCE, _SHORT = 30.0, 5.0


@contextmanager
def started(hosts: Sequence[str], arguments: Sequence[str]) -> Iterator[Callable[[], None]]:
    """Start `forge` with these arguments on all hosts but the first, which is this machine.

    Nothing is started where `hosts` is empty, or where this process is a rank already.

    Yields:
        A function to call while the others are waited for.

    Raises:
        UsageError: the hosts are not ones that can train together.
    """
    if not hosts or find_place():
        yield lambda: None
        return
    addresses = find_addresses(hosts)
    command = [sys.executable, "-m", "forge_cli", *arguments]
    ring = json.dumps([[address] for address in addresses])
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="forge-hosts-") as folder:
        file = Path(folder) / "hosts.json"
        file.write_text(ring, encoding="utf-8")
        before = dict(os.environ)
        os.environ |= {"MLX_HOSTFILE": str(file), "MLX_RANK": "0"} | _threads(addresses)
        try:
            for rank, host in enumerate(hosts[1:], 1):
                processes.append(_start(rank, host, _is_here(addresses[rank]), command, ring))
            yield lambda: _must_live(hosts, processes)
            _end(processes, _PATIENCE)
        finally:
            os.environ.clear()
            os.environ |= before
            _end(processes, _SHORT)


def find_addresses(hosts: Sequence[str]) -> list[str]:
    """IPv4 address and port for each host; one that is named twice runs two processes.

    Raises:
        UsageError: fewer than two, one that is not known, a first that is not this machine, or
            an address that the others cannot reach.
    """
    if len(hosts) < 2 or not all(host.strip() for host in hosts):
        raise UsageError(
            f"hosts {','.join(hosts) or 'none'}: two or more names are needed",
            "the first is this machine: --hosts mini1.local,mini2.local",
        )
    found: list[str] = []
    for rank, host in enumerate(hosts):
        try:
            address = socket.gethostbyname(host.rpartition("@")[2])
        except OSError as error:
            raise UsageError(
                f"hosts: {host}: {error.strerror or error}", "give a name that ssh knows, or an IP"
            ) from None
        here = _is_here(address)
        if rank == 0 and not here:
            raise UsageError(
                f"hosts: {host} ({address}) comes first and is not this machine",
                "put this machine's own name or address first",
            )
        port = _free_port(address, found) if here else _PORT + rank
        found.append(f"{address}:{port}")
    away = [h for h, address in zip(hosts, found, strict=True) if not _is_here(address)]
    if away and any(address.startswith(_LOOPBACK) for address in found):
        raise UsageError(
            f"hosts: {away[0]} cannot reach {hosts[0]} ({found[0].partition(':')[0]})",
            "give this machine's address in the network instead",
        )
    return found


def _threads(addresses: Sequence[str]) -> dict[str, str]:
    """The processor's cores shared out, where several ranks run on this machine."""
    here = sum(map(_is_here, addresses))
    if here == 1 or "OPENBLAS_NUM_THREADS" in os.environ:
        return {}
    each = str(max(1, (os.cpu_count() or 1) // here))
    return {"OPENBLAS_NUM_THREADS": each, "OMP_NUM_THREADS": each}


def _is_here(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address.partition(":")[0], 0))
        except OSError:
            return False
    return True


def _free_port(address: str, taken: Sequence[str]) -> int:
    while True:
        with socket.create_server((address, 0)) as server:
            port: int = server.getsockname()[1]
        if f"{address}:{port}" not in taken:
            return port


def _start(
    rank: int, host: str, here: bool, command: Sequence[str], ring: str
) -> subprocess.Popen[bytes]:
    away = ["ssh", "-o", "BatchMode=yes", host, remote_script(rank, Path.cwd(), command, ring)]
    return subprocess.Popen(
        list(command) if here else away,
        env=os.environ | {"MLX_RANK": str(rank)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # Ctrl-C is rank 0's: it saves a checkpoint, then tells the others.
        start_new_session=True,
    )


def remote_script(rank: int, folder: Path, command: Sequence[str], ring: str) -> str:
    """What a shell on another machine runs: in the same folder, with the same Python."""
    return (
        f"cd {shlex.quote(str(folder))} 2>/dev/null; "
        f"hosts=$(mktemp) && printf %s {shlex.quote(ring)} > $hosts && "
        f"MLX_HOSTFILE=$hosts MLX_RANK={rank} {shlex.join(command)}; "
        "code=$?; rm -f $hosts; exit $code"
    )


def _must_live(hosts: Sequence[str], processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for rank, process in enumerate(processes, 1):
        if process.poll() is not None:
            raise ForgeError(
                f"rank {rank} on {hosts[rank]} ended with code {process.returncode} before "
                "training began",
                f"what it said stands above; it needs ssh without a password, and "
                f"{sys.executable} with Forge",
            )


def _end(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    until = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
        if process.poll() is None:
            process.kill()
            process.wait()
