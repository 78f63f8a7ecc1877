"""A llama-server on one GGUF, kept while it is used: one at a time, ended when nobody asks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from forge_cli.models.llama_server import LlamaServer

IDLE = 300.0  # seconds


class Kept:
    """Use `take`, then `release`, on one event loop.

    Args:
        idle: seconds after the last release until the server is ended.
    """

    def __init__(self, idle: float = IDLE) -> None:
        self.idle = idle
        self.server: LlamaServer | None = None
        self.file: Path | None = None
        self._users = 0
        self._turn = asyncio.Lock()  # whose turn it is to say which file
        self._freed = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def take(self, file: Path, n_ctx: int) -> str:
        """The URL of a server on `file`; waits until those who use another one are done.

        Raises:
            ForgeError: the server is missing, or refuses the file.
        """
        async with self._turn:
            await self._settle()
            while self._users and self.file != file:
                self._freed.clear()
                await self._freed.wait()
            if self._timer:
                self._timer.cancel()
            if self.file != file or not self.server or not self.server.runs():
                # A caller that goes away does not leave a process that nobody knows of.
                self._starting = asyncio.create_task(self._start(file, n_ctx))
                await asyncio.shield(self._starting)
            assert self.server
            self._users += 1
            return self.server.url

    def release(self) -> None:
        """One of those who took it is done."""
        self._users -= 1
        self._freed.set()
        if not self._users:
            self._timer = asyncio.get_running_loop().call_later(self.idle, self._end_soon)

    async def close(self) -> None:
        """End the server, whoever uses it."""
        if self._timer:
            self._timer.cancel()
        await self._settle()
        await self._stop()

    async def _settle(self) -> None:
        """Until a start that was left alone is over."""
        if self._starting:
            with suppress(Exception):  # told to whoever began it
                await asyncio.shield(self._starting)
            self._starting = None

    async def _start(self, file: Path, n_ctx: int) -> None:
        await self._stop()
        self.server = await asyncio.to_thread(LlamaServer, file, n_ctx)
        self.file = file

    async def _stop(self) -> None:
        server, self.server, self.file = self.server, None, None
        if server:
            await asyncio.to_thread(server.stop)

    def _end_soon(self) -> None:
        task = asyncio.create_task(self._end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self) -> None:
        async with self._turn:
            await self._settle()
            if not self._users:
                await self._stop()
