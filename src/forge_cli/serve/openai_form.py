"""Errors under /v1 in the form that OpenAI's clients read: the same problem, said otherwise."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forge_cli.serve.problems import Problem, Refused, answer

PREFIX = "/v1/"
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# What a client of OpenAI's calls a bad request.
_STATUS = {422: 400}


class Told(BaseModel):
    """One error, as OpenAI writes it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of an error under /v1."""

    error: Told


# What any route under /v1 may answer with, besides what every route may.
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request is wrong."},
    404: {"model": ErrorBody, "description": "There is none."},
    409: {"model": ErrorBody, "description": "The state of a job does not allow it."},
    415: {"model": ErrorBody, "description": "Another media type is needed."},
    503: {"model": ErrorBody, "description": "Not possible now; try again."},
}


def wrong(param: str, what: str, hint: str = "") -> Refused:
    """A request of which `param` cannot be."""
    return _refused(400, "Bad request", param, what, hint)


def missing(param: str, what: str, hint: str = "") -> Refused:
    """A request of which `param` names what is not there."""
    return _refused(404, "Not found", param, what, hint)


def _refused(status: int, title: str, param: str, what: str, hint: str) -> Refused:
    refused = Refused(status, title, hint=hint)
    refused.problem.errors = [{"where": param, "what": what}]
    return refused


def told(problem: Problem) -> bytes:
    """The problem in OpenAI's form, as JSON: an `ErrorBody`, in ASCII as problems are."""
    faults = "; ".join(f"{one['where']}: {one['what']}" for one in problem.errors)
    parts = [part for part in (problem.title, problem.detail, faults) if part]
    kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    where = str(problem.errors[0]["where"]) if problem.errors else ""
    error = {
        "message": ": ".join(parts) + (f" ({problem.hint})" if problem.hint else ""),
        "type": _TYPES.get(problem.status, kind),
        "param": where.removeprefix("body.") or None,
        "code": re.sub(r"\W+", "_", problem.title.lower()).strip("_") or None,
    }
    return json.dumps({"error": error}).encode()


def describe(answers: dict[str, Any]) -> None:
    """Let OpenAPI's responses of an operation under /v1 refuse in this form."""
    refusals = {_STATUS.get(int(s), int(s)): said for s, said in answers.items() if s >= "4"}
    for name in [s for s in answers if s >= "4"]:
        del answers[name]
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    for status, said in sorted(refusals.items()):
        answers[str(status)] = {"description": said["description"], "content": content}


class OpenAIErrors:
    """ASGI middleware: what is a problem under /v1 leaves as OpenAI's error, whoever wrote it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything else through as it comes."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self.app(scope, receive, send)
            return
        held: list[Message] = []
        begun = False

        async def rewrite(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start" and _is_problem(message):
                held.append(message)
                return
            if not held:
                await send(message)
                return
            held.append(message)
            if not message.get("more_body"):
                for one in _rewritten(held):
                    await send(one)

        try:
            await self.app(scope, receive, rewrite)
        except Exception:
            # What answers an unexpected error stands before all middleware, and logs it.
            if not begun:
                problem = Problem(title="Internal error", status=500, hint="see the server's log")
                await answer(problem)(scope, receive, rewrite)
            raise


def _is_problem(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"application/problem+json")
        for name, value in start["headers"]
    )


def _rewritten(held: list[Message]) -> list[Message]:
    start, *rest = held
    # Not checked again: half characters that were sent would be refused.
    said = json.loads(b"".join(part.get("body", b"") for part in rest))
    body = told(Problem.model_construct(**said))
    own = (b"content-type", b"content-length")
    headers = [(name, value) for name, value in start["headers"] if name.lower() not in own]
    headers += [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    status = _STATUS.get(start["status"], start["status"])
    return [
        {**start, "status": status, "headers": headers},
        {"type": "http.response.body", "body": body},
    ]
