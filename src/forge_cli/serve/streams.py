"""Server-sent events: what a client has not seen yet, from where it is, to the end of the server.

`id: E.M.L` are the numbers of the job's events, blocks of metrics and blocks of log seen so far;
with it as `Last-Event-ID` a client goes on exactly there. A job's state is a snapshot: the newest
counts, and one whose state is over comes after all of its metrics and log.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from forge_cli.serve.channels import Blocks
from forge_cli.serve.watcher import Known, Watcher

KEEP_ALIVE = 15.0  # seconds of silence after which a comment is sent
SEND = 60.0  # seconds that a client may leave what was sent unread
_AT_ONCE = 256 * 1024  # characters of one write; one block may be larger
_SHOWN = 100  # jobs that a client without a past is told of
_PLACE = re.compile(r"(\d{1,12})\.(\d{1,12})\.(\d{1,12})")


class Client:
    """Who reads a stream.

    Attributes:
        news: set when there may be something to send. gone: it has closed the connection.
    """

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.gone = False
        self._silent = False
        self._sending = 0.0  # since when; 0: nothing is being sent

    async def wait(self) -> bool:
        """Until there is news, or the time for a sign of life; whether there is news."""
        await self.news.wait()
        silent, self._silent = self._silent, False
        return not silent

    async def send(self, send: Send, text: str) -> None:
        """Send a part of the body; returns when the client has read enough of what came before."""
        self._sending = time.monotonic()
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        self._sending = 0.0

    async def watch(self, task: asyncio.Task[None]) -> None:
        """Let it be told now and then that there is no news; cancel `task` if it does not read.

        One timer for each client, where one for each message would be a third of the work.
        """
        while True:
            await asyncio.sleep(min(KEEP_ALIVE, SEND / 2))
            if self._sending and time.monotonic() - self._sending > SEND:
                task.cancel()
                return
            self._silent = not self.news.is_set()
            self.news.set()


class EventStream(Response):
    """A response of messages, which ends with its client or with the server."""

    media_type = "text/event-stream"

    def __init__(self, client: Client, messages: AsyncIterator[str]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.client, self.messages = client, messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until one of both is gone."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        sending = asyncio.ensure_future(self._send(send))
        beside = [self._until_gone(receive), self.client.watch(sending)]
        watching = [asyncio.ensure_future(one) for one in beside]
        try:
            with suppress(asyncio.CancelledError):
                await sending
        finally:
            for task in (sending, *watching):
                task.cancel()

    async def _send(self, send: Send) -> None:
        try:
            async for text in self.messages:
                await self.client.send(send, text)
            await send({"type": "http.response.body", "body": b""})
        finally:
            await self.messages.aclose()  # type: ignore[attr-defined]

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.client.gone = True
        self.client.news.set()


def place_of(last_event_id: str) -> tuple[int, int, int]:
    """Where a client was; (0, 0, 0) for one that does not say it."""
    found = _PLACE.fullmatch(last_event_id.strip())
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


async def of_job(
    watcher: Watcher, job_id: str, client: Client, place: tuple[int, int, int]
) -> AsyncIterator[str]:
    """The messages of one job from `place` on."""
    channel = watcher.channel(job_id)
    channel.waiting.add(client.news)
    at = _Place(watcher, *place)
    try:
        yield ": hello\n\n"
        while not (watcher.closing or client.gone):
            client.news.clear()
            known = watcher.get(job_id)
            if known is None:
                yield f'id: {at}\nevent: removed\ndata: {{"id":"{job_id}"}}\n\n'
                return
            text = ""
            if channel.ready:
                # The job is taken before the blocks are, so that none is missing at its end.
                more = [await at.blocks("metrics", channel.metrics)]
                more += [await at.blocks("log", channel.log)]
                text = "".join(more)
                at.behind = at.metrics < channel.metrics.end or at.log < channel.log.end
                text += "" if at.behind else at.job(known)
            if text:
                yield text
            if (not text or not at.behind) and not await client.wait():
                yield ": alive\n\n"
    finally:
        channel.waiting.discard(client.news)
        watcher.leave(channel)


class _Place:
    """How far a client is."""

    def __init__(self, watcher: Watcher, events: int, metrics: int, log: int) -> None:
        self.watcher = watcher
        self.events, self.metrics, self.log = events, metrics, log
        self.behind = True
        self.version = -1

    def __str__(self) -> str:
        return f"{self.events}.{self.metrics}.{self.log}"

    async def blocks(self, name: str, found: Blocks) -> str:
        place = getattr(self, name)
        new = found.after(place)
        if new is None:
            new = await asyncio.to_thread(found.old, self.watcher.store, place)
        text, size = [], 0
        for data in new:
            place += 1
            setattr(self, name, place)
            text.append(f"id: {self}\nevent: {name}\ndata: {data}\n\n")
            size += len(data)
            if size > _AT_ONCE:
                break
        return "".join(text)

    def job(self, known: Known) -> str:
        if known.version == self.version:
            return ""
        seen = self.version < 0 and known.job.events == self.events
        self.version, self.events = known.version, known.job.events
        if seen and known.job.state != "running":
            return ""
        return f"id: {self}\nevent: job\ndata: {known.body().decode()}\n\n"


async def of_all(watcher: Watcher, client: Client, events: int) -> AsyncIterator[str]:
    """Each job whose state changed; `events`: how many, of all jobs, the client has heard of."""
    watcher.waiting.add(client.news)
    at = watcher.version
    try:
        yield ": hello\n\n" + "".join(_since(watcher, events))
        while not (watcher.closing or client.gone):
            client.news.clear()
            news, at = _news(watcher, at), watcher.version
            if news:
                yield "".join(news)
            if not await client.wait():
                yield ": alive\n\n"
    finally:
        watcher.waiting.discard(client.news)


def _since(watcher: Watcher, events: int) -> list[str]:
    if not watcher.started <= events <= watcher.total:
        newest = reversed(watcher.page(_SHOWN))
        return [_message(watcher, known.job.id, watcher.total) for known in newest]
    missed = [(i, total) for i, (_, total) in list(watcher.recent.items()) if total > events]
    return [_message(watcher, job_id, total) for job_id, total in missed]


def _news(watcher: Watcher, version: int) -> list[str]:
    news: list[str] = []
    recent = list(watcher.recent.items()) if version < watcher.version else []
    for job_id, (changed, total) in reversed(recent):
        if changed <= version:
            break
        news.insert(0, _message(watcher, job_id, total))
    return news


def _message(watcher: Watcher, job_id: str, total: int) -> str:
    known = watcher.get(job_id)
    if known is None:
        return f'id: {total}.0.0\nevent: removed\ndata: {{"id":"{job_id}"}}\n\n'
    return f"id: {total}.0.0\nevent: job\ndata: {known.body().decode()}\n\n"
