"""Chats passed on to whoever answers, as they come; a client that hangs up ends its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import httpx
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from forge_cli.deploy.address import is_loopback
from forge_cli.serve.kept import Kept
from forge_cli.serve.openai_form import told
from forge_cli.serve.problems import Refused

T = TypeVar("T")
_LARGEST = 64 << 20  # bytes of an answer that is not streamed
# A model may be loaded, and a long prompt read, before the first word.
_TIMEOUT = httpx.Timeout(600, connect=5)
_GONE = 499  # seen by nobody but the log


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Relay:
    """The connections of one server to those that answer.

    Attributes:
        kept: the llama-server for the models of jobs.
    """

    def __init__(self) -> None:
        self.kept = Kept()
        # A proxy of the environment has no place between this machine and itself.
        self._here = httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False)
        self._there = httpx.AsyncClient(timeout=_TIMEOUT)

    def client(self, url: str) -> httpx.AsyncClient:
        """The client for `url`."""
        return self._here if is_loopback(url) else self._there

    async def close(self) -> None:
        """End what it holds."""
        await self.kept.close()
        await self._here.aclose()
        await self._there.aclose()

    async def chat(
        self, request: Request, url: str, body: bytes, done: Callable[[], None]
    ) -> Response:
        """The answer of the server at `url`, status and all.

        Args:
            done: called once, when the answer is over however it ends.

        Raises:
            Refused: nothing answers there.
        """
        try:
            return await self._chat(request, url, body, done)
        except BaseException as error:
            done()
            if isinstance(error, httpx.HTTPError):
                raise _refused(url, error) from None
            if isinstance(error, ClientGone):
                return Response(status_code=_GONE)
            raise

    async def _chat(
        self, request: Request, url: str, body: bytes, done: Callable[[], None]
    ) -> Response:
        client = self.client(url)
        asked = client.build_request(
            "POST", f"{url.rstrip('/')}/v1/chat/completions", content=body,
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
        )  # fmt: skip
        answer = await unless_gone(request, client.send(asked, stream=True))
        kind = answer.headers.get("content-type", "application/json")
        if kind.startswith("text/event-stream"):
            return _Streamed(answer, done, kind)
        try:
            text = await unless_gone(request, _whole(answer))
        finally:
            with anyio.CancelScope(shield=True):
                await answer.aclose()
        done()
        return Response(text, answer.status_code, media_type=kind)


class _Streamed(StreamingResponse):
    """What another server sends, as it sends it; that one is told when this one's client left."""

    def __init__(self, answer: httpx.Response, done: Callable[[], None], kind: str) -> None:
        self._answer, self._done = answer, done
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(self._parts(), answer.status_code, headers, media_type=kind)

    async def _parts(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._answer.aiter_raw():
                yield block
        except httpx.HTTPError as error:
            # Too late for a status: a client of OpenAI's raises at an event that is an error.
            body = Refused(503, "The answer broke off", str(error) or type(error).__name__)
            yield b"\n\ndata: " + told(body.problem) + b"\n\n"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._answer.aclose()
            self._done()


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up; its body is read.

    Raises:
        ClientGone: it did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _whole(answer: httpx.Response) -> bytes:
    found = bytearray()
    async for block in answer.aiter_raw():
        found += block
        if len(found) > _LARGEST:
            raise Refused(503, "The answer is too large")
    return bytes(found)


def _refused(url: str, error: httpx.HTTPError) -> Refused:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Refused(503, "No server answers chats", hint="start it: ollama serve")
    return Refused(503, "The answer broke off", str(error) or type(error).__name__)


@asynccontextmanager
async def open_relay(app: FastAPI) -> AsyncIterator[None]:
    """The relay of an app, as long as it serves."""
    app.state.relay = Relay()
    try:
        yield
    finally:
        await app.state.relay.close()


def relay(request: Request) -> Relay:
    """The server's, for a route."""
    found = request.app.state.relay
    assert isinstance(found, Relay)
    return found
