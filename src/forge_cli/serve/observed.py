"""What is told about requests: a line of JSON for each, and figures for Prometheus.

Neither holds a query, a header or a body, so no secret.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forge_cli.serve.problems import Problem, answer

_log = logging.getLogger("forge.serve")
_access = logging.getLogger("forge.access")
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_OTHER = "other"


class Figures:
    """Counts since the server began.

    Attributes:
        requests: by method, route and status. seconds: by bound, of all that are no stream.
        open: requests under way.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.seconds: Counter[float] = Counter()
        self.sum = 0.0
        self.open = 0

    def took(self, seconds: float) -> None:
        """One more request."""
        self.sum += seconds
        self.seconds[next((b for b in BOUNDS if seconds <= b), float("inf"))] += 1


class Observed:
    """Logs and counts each request; what no handler caught is answered here, and logged."""

    def __init__(self, app: ASGIApp, figures: Figures) -> None:
        self.app, self.figures = app, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        seen = {"status": 0, "bytes": 0, "stream": False}

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                seen["stream"] = (b"content-type", _EVENTS) in message["headers"]
            else:
                seen["bytes"] += len(message.get("body", b""))
            await send(message)

        self.figures.open += 1
        try:
            await self.app(scope, receive, counted)
        except Exception:
            _log.exception("%s %s", scope["method"], ascii(scope["path"]))
            if seen["status"]:
                raise
            problem = Problem(title="Internal error", status=500, hint="see the server's log")
            await answer(problem)(scope, receive, counted)
        finally:
            self.figures.open -= 1
            self._tell(scope, seen, time.perf_counter() - began)

    def _tell(self, scope: Scope, seen: dict[str, int], seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _OTHER)
        method = scope["method"] if route != _OTHER else _OTHER
        self.figures.requests[method, route, seen["status"]] += 1
        if not seen["stream"]:
            self.figures.took(seconds)
        if _access.isEnabledFor(logging.INFO):
            client = (scope.get("client") or ("", 0))[0]
            line = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "client": client, "method": scope["method"], "path": scope["path"],
                "status": seen["status"], "bytes": seen["bytes"], "ms": round(seconds * 1e3, 1),
            }  # fmt: skip
            _access.info(json.dumps(line))


_EVENTS = b"text/event-stream; charset=utf-8"
