"""What OpenAPI says of all routes alike: who may ask, and how each may refuse."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from forge_cli.core.config import Settings
from forge_cli.serve import openai_form
from forge_cli.serve.jobs.command import EXECUTING, FORBIDDEN
from forge_cli.serve.problems import Problem
from forge_cli.serve.security import OPEN, OPEN_BELOW
from forge_cli.serve.services import Services

_WORDS = {
    400: "The body cannot be read.",
    401: "No valid token.",
    403: "Not open to other sites, or not to this server's jobs.",
    404: "There is none.",
    408: "The body did not come in time.",
    409: "The job's state does not allow it.",
    413: "The body is too large.",
    415: "Another media type is needed.",
    416: "The file has no such range.",
    421: "The server is not known by this name.",
    422: "The request is wrong.",
    429: "Too many requests; see Retry-After.",
    503: "Not possible now; try again.",
}
_CHANGING = {"post", "put", "patch", "delete"}


def problems(
    *statuses: int, also: dict[int | str, dict[str, Any]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may refuse so; `also`: what else it answers."""
    return {**(also or {}), **{status: _problem(status) for status in statuses}}


def content(media_type: str, *, binary: bool = False) -> dict[str, Any]:
    """The content of a response that is no JSON."""
    schema = {"type": "string"} | ({"format": "binary"} if binary else {})
    return {"content": {media_type: {"schema": schema}}}


def install(app: FastAPI, found: Services) -> None:
    """Complete the document of the app, which is made when it is first asked for."""

    def document() -> dict[str, Any]:
        if not app.openapi_schema:
            made = get_openapi(
                title=app.title, version=app.version, description=app.description,
                routes=app.routes, license_info=app.license_info,
            )  # fmt: skip
            app.openapi_schema = _complete(made, with_token=bool(found.token_sha256))
            _describe_options(app.openapi_schema, execute=found.allowed.execute)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(document: dict[str, Any], *, with_token: bool) -> dict[str, Any]:
    parts = document.setdefault("components", {}).setdefault("schemas", {})
    parts["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        parts.pop(unused, None)
    if with_token:
        bearer = {"type": "http", "scheme": "bearer"}
        document["components"]["securitySchemes"] = {"bearer": bearer}
        document["security"] = [{"bearer": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            is_open = path in OPEN or path.startswith(OPEN_BELOW)
            also = {403, 421} | ({401} if with_token and not is_open else set())
            also |= {408, 413, 429} if method in _CHANGING else set()
            also |= {400} if "requestBody" in operation else set()
            if with_token and is_open:
                operation["security"] = []
            answers = operation["responses"]
            if "application/json" in answers.get("422", {}).get("content", {}):
                also.add(422)
            for status in sorted(also):
                answers[str(status)] = _problem(status)
            if path.startswith(openai_form.PREFIX):
                openai_form.describe(answers)
    return document


def _describe_options(document: dict[str, Any], *, execute: bool) -> None:
    """The settings that a job may have, in place of any object."""
    settings = Settings.model_json_schema()["properties"]
    closed = FORBIDDEN - (EXECUTING if execute else set())
    open_ = {name: schema for name, schema in settings.items() if name not in closed}
    body = document["components"]["schemas"]["FineTune"]["properties"]
    body["options"] = {
        "type": "object", "title": "Options", "properties": open_, "additionalProperties": False,
        "description": "settings of `forge train`, as in forge.yaml",
    }  # fmt: skip


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {"application/problem+json": {"schema": schema}}
    return {"description": _WORDS[status], "content": content}
