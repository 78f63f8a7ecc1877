"""Who may ask: the token, the Host and Origin headers, and what browsers are told to forbid."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forge_cli.serve.problems import Problem, answer
from forge_cli.serve.services import Services
from forge_cli.serve.tokens import is_right

# The page without its data, and whether the server lives.
OPEN = {"/", "/favicon.ico", "/healthz", "/readyz"}
OPEN_BELOW = "/static/"
LOCAL = {"localhost", "127.0.0.1", "::1"}

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Headed:
    """Adds what every answer says to a browser; a route's own word goes first."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, headed if scope["type"] == "http" else send)


class Guard:
    """Refuses who has no token, comes by a foreign name, or is sent by another site's page."""

    def __init__(self, app: ASGIApp, found: Services) -> None:
        self.app, self.found = app, found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        problem = self._problem(scope, headers)
        if problem is None:
            await self.app(scope, receive, send)
            return
        more = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else None
        await answer(problem, more)(scope, receive, send)

    def _problem(self, scope: Scope, headers: Headers) -> Problem | None:
        host = headers.get("host", "")
        token = self.found.token_sha256
        if not token and _name(host) not in LOCAL:
            # A page whose name was made to point here (DNS rebinding) still sends its own name.
            hint = "use localhost, or start the server with a token"
            return Problem(title="Not served by this name", status=421, detail=host, hint=hint)
        origin = headers.get("origin")
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if (origin is not None and urlsplit_host(origin) != host.lower()) or (
            foreign and scope["path"] not in OPEN
        ):
            return Problem(title="Not open to other sites", status=403, detail=origin or "")
        if not token or _is_open(scope):
            return None
        if is_right(headers.get("authorization", ""), token):
            return None
        hint = "send Authorization: Bearer TOKEN"
        return Problem(title="No valid token", status=401, hint=hint)


def urlsplit_host(origin: str) -> str:
    """Host and port of an Origin; empty for what is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_open(scope: Scope) -> bool:
    path = scope["path"]
    there = path in OPEN or (path.startswith(OPEN_BELOW) and ".." not in path)
    return scope["method"] in ("GET", "HEAD") and there


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
