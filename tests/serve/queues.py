"""A queue of each kind, for the length of a `with` block: real servers from Debian's packages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest


@contextmanager
def queue_urls(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/jobs.db"
        return
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    start = _redis if kind == "redis" else _postgres
    with start(folder, port) as url:
        yield url


@contextmanager
def _redis(folder: Path, port: int) -> Iterator[str]:
    program = shutil.which("redis-server")
    if not program:
        pytest.skip("redis-server is not installed")
    flags = f"--port {port} --bind 127.0.0.1 --save --appendonly no --dir {folder}"
    process = subprocess.Popen([program, *flags.split()], stdout=subprocess.DEVNULL)
    try:
        _wait(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _postgres(folder: Path, port: int) -> Iterator[str]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("postgresql is not installed")
    programs, data = found[-1].parent, folder / "data"
    # The server refuses to be root; its package made a user for it.
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if user:
        for place in (folder, *folder.parents):
            if place.stat().st_uid == 0 and place.is_relative_to("/tmp") and place != Path("/tmp"):
                place.chmod(0o755)
        shutil.chown(folder, "postgres")
    initdb = [programs / "initdb", "-D", data, "-A", "trust", "-U", "forge", "--no-sync"]
    subprocess.run([*user, *map(str, initdb)], check=True, capture_output=True)
    flags = f"-D {data} -p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    server = [*user, str(programs / "postgres"), *flags.split()]
    process = subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(port)
        time.sleep(0.3)
        yield f"postgresql://forge@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*user, programs / "pg_ctl", "stop", "-D", data, "-m", "immediate"],
                       check=False, capture_output=True)  # fmt: skip
        process.wait()


def _wait(port: int) -> None:
    for _ in range(200):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not listen")
