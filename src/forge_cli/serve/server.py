"""The process of `forge serve`: uvicorn on a socket, and workers that live no longer than it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import ip_address

import uvicorn

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.serve.app import create_app
from forge_cli.serve.protocol import Impatient
from forge_cli.serve.services import Services

_END = 90.0  # seconds for the workers' jobs to write their checkpoints
_AGAIN = 2.0  # seconds before a worker that died is started anew
_FILES = 8192  # files and connections that are open at once, where the system lets us


class Server(uvicorn.Server):
    """Ends its event streams before it waits for requests to end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        self.config.app.state.watcher.end_streams()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def make_server(found: Services) -> Server:
    """A server of the jobs; `run(sockets=[…])` serves until a signal or `should_exit`."""
    config = uvicorn.Config(
        create_app(found),
        http=Impatient,
        ws="none",
        loop="asyncio",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # whoever asks could write them
        server_header=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=32 * 1024,
    )
    return Server(config)


def listen(host: str, port: int, *, with_token: bool) -> socket.socket:
    """A socket that listens.

    Raises:
        UsageError: others could reach it without a token. ForgeError: the port is taken.
    """
    if not with_token and not is_loopback(host):
        raise UsageError(
            f"--host {host}: other machines could start jobs here",
            "add --token-file FILE; it is made, and the token is shown once",
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.create_server((host, port), family=family, backlog=2048)
        # asyncio does not see that this is TCP; a body would wait 40 ms for its head's receipt.
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found
    except OSError as error:
        raise ForgeError(f"{host}:{port}: {error.strerror}", "choose another --port") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def serve(found: Services, listening: socket.socket) -> None:
    """Until SIGTERM or Ctrl-C; requests under way are answered first."""
    _log_lines()
    _allow_files()
    # The thread that looks at the queue would hold up each write of the loop for 5 ms.
    sys.setswitchinterval(0.001)
    server = make_server(found)
    # What the imports made stays; to search it for garbage would hold up all clients for 0.1 s.
    gc.collect()
    gc.freeze()
    with suppress(KeyboardInterrupt):  # the signal, once more, after the end
        server.run(sockets=[listening])


@contextmanager
def workers(count: int, arguments: Sequence[str], queue: str) -> Iterator[None]:
    """So many `forge worker` processes, each started again if it dies.

    Args:
        queue: its URL, which may hold a password, so that it is no argument.
    """
    stopping = threading.Event()
    environment = {k: v for k, v in os.environ.items() if k != "FORGE_TOKEN"}
    command = [sys.executable, "-m", "forge_cli", "worker", "--until-stdin-ends", *arguments]

    def keep() -> None:
        while not stopping.is_set():
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                env=environment | {"FORGE_QUEUE": queue}, start_new_session=True,
            )  # fmt: skip
            while not stopping.wait(0.2) and process.poll() is None:
                pass
            if process.poll() is None:
                _end(process)
            elif not stopping.is_set():
                logging.getLogger("forge.serve").warning("a worker ended: %s", process.returncode)
                stopping.wait(_AGAIN)

    threads = [threading.Thread(target=keep, name="workers") for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _log_lines() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name, level in (("forge", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def _allow_files() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
