"""How much a client may send, how long it may take, and how often."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forge_cli.serve.problems import Problem, answer
from forge_cli.serve.services import Limits

UPLOADS = "/v1/files"
_READING = {"GET", "HEAD", "OPTIONS"}
_CLIENTS = 10_000  # whose rates are remembered
_FRAME = 64 * 1024  # of a multipart body around its file
BODY_SECONDS, UPLOAD_SECONDS = 30.0, 900.0


class Limited:
    """Refuses bodies that are too long, by their length or as they come, and hasty clients."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.rates = Rates(limits.per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] not in _READING:
            client = (scope.get("client") or ("", 0))[0]
            if wait := self.rates.wait(client, time.monotonic()):
                problem = Problem(title="Too many requests", status=429, hint=f"wait {wait} s")
                await answer(problem, {"Retry-After": str(wait)})(scope, receive, send)
                return
        upload = scope["path"] == UPLOADS
        most = self.limits.upload + _FRAME if upload else self.limits.body
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdigit() or len(length) > 18 or int(length) > most:
            # Not read, so the connection is of no use any more.
            refused = answer(_too_large(most), {"Connection": "close"})
            await refused(scope, receive, send)
            return
        within = _Within(receive, most, UPLOAD_SECONDS if upload else BODY_SECONDS)
        await self.app(scope, within, send)


class _Within:
    """A body that may have `most` bytes and take so many seconds."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self.receive, self.most = receive, most
        self.until = time.monotonic() + seconds
        self.over = False

    async def __call__(self) -> Message:
        if self.over:
            return await self.receive()
        try:
            async with asyncio.timeout(max(0.0, self.until - time.monotonic())):
                message = await self.receive()
        except TimeoutError:
            raise HTTPException(408, "The body did not come", {"Connection": "close"}) from None
        self.most -= len(message.get("body", b""))
        self.over = not message.get("more_body", False)
        if self.most < 0:
            raise HTTPException(413, "Body too large", {"Connection": "close"})
        return message


class Rates:
    """A bucket for each client, which fills with `per_minute` tokens a minute."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, at: float) -> int:
        """Take a token; the seconds to wait for one, 0 if there was one."""
        left, before = self._clients.pop(client, (float(self.per_minute), at))
        left = min(float(self.per_minute), left + (at - before) * self.per_minute / 60)
        self._clients[client] = (left - 1 if left >= 1 else left), at
        while len(self._clients) > _CLIENTS:
            self._clients.popitem(last=False)
        return 0 if left >= 1 else max(1, math.ceil((1 - left) * 60 / self.per_minute))


def _too_large(most: int) -> Problem:
    return Problem(title="Body too large", status=413, hint=f"at most {most} bytes")
