"""Errors as `application/problem+json` (RFC 9457): one title, one detail, what to do next."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.serve.jobs import Conflict


class Problem(BaseModel):
    """What an error's body says.

    Attributes:
        hint: what to do next. errors: where a body or a parameter is wrong.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    hint: str = ""
    errors: list[dict[str, Any]] = []


class Refused(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, title: str, detail: str = "", hint: str = "", **headers: str
    ) -> None:
        super().__init__(title)
        self.problem = Problem(title=title, status=status, detail=detail, hint=hint)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def answer(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The response of a problem."""
    # What was sent is quoted in it and may hold half characters, so only ASCII goes out.
    return Response(
        json.dumps(problem.model_dump()),
        status_code=problem.status,
        headers=headers,
        media_type="application/problem+json",
    )


def install(app: FastAPI) -> None:
    """Let every error of the app be a problem; an unexpected one tells nothing of the inside."""

    @app.exception_handler(Refused)
    async def _refused(_: Request, error: Refused) -> Response:
        return answer(error.problem, error.headers)

    @app.exception_handler(Conflict)
    async def _conflict(_: Request, error: Conflict) -> Response:
        return answer(Problem(title="Conflict", status=409, detail=str(error)))

    @app.exception_handler(UsageError)
    async def _usage(_: Request, error: UsageError) -> Response:
        return answer(
            Problem(title="Bad request", status=422, detail=error.message, hint=error.hint)
        )

    @app.exception_handler(ForgeError)
    async def _forge(_: Request, error: ForgeError) -> Response:
        return answer(
            Problem(title="Not possible now", status=503, detail=error.message, hint=error.hint)
        )

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> Response:
        found = [
            {"where": ".".join(str(part) for part in one["loc"]), "what": one["msg"]}
            for one in error.errors()
        ]
        return answer(Problem(title="Bad request", status=422, errors=found))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers) if error.headers else {}
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods(app, request))
        return answer(Problem(title=str(error.detail), status=error.status_code), headers)

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, error: Exception) -> Response:
        return answer(Problem(title="Internal error", status=500, hint="see the server's log"))


def _methods(app: FastAPI, request: Request) -> list[str]:
    """What the path can be asked for, by all of its routes; the one that refused knows its own."""
    found: set[str] = set()
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"):
        scope = dict(request.scope) | {"method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in app.routes):
            found.add(method)
    return sorted(found)
