"""`/v1/chat/completions`: answered by Ollama, or by a llama-server on what a job exported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forge_cli.deploy.gguf_header import read_header
from forge_cli.serve.jobs import Job
from forge_cli.serve.openai_form import wrong
from forge_cli.serve.problems import Refused
from forge_cli.serve.relay import ClientGone, relay, unless_gone
from forge_cli.serve.routes.openai.job_objects import can_chat
from forge_cli.serve.routes.openai.models import served
from forge_cli.serve.services import Services, services

router = APIRouter()
Found = Annotated[Services, Depends(services)]

_OF_JOB = re.compile(r"(?:^|:)(ftjob-\d{6,12})$")
_CONTEXT = 4096  # tokens, where the job does not say


class ChatRequest(BaseModel):
    """What is looked at of a chat; everything else is passed on as it is."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1, max_length=500)
    messages: list[dict[str, Any]] = Field(min_length=1)
    stream: bool | None = None


_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ChatRequest.model_json_schema()}},
    }
}


@router.post("/chat/completions", openapi_extra=_BODY, response_model=None)
async def chat(request: Request, found: Found) -> Response:
    """An answer, whole or as server-sent events."""
    body = await _read(request, found.limits.body)
    job = await run_in_threadpool(_job_of, body.model, found)
    there = relay(request)
    if job is None:
        return await there.chat(request, found.models_url, _dump(body), _nothing)
    version = job.result.get("metrics", {}).get("deploy", {}).get("version")
    if version and any(one.id == version for one in await served(request, found)):
        named = body.model_copy(update={"model": version})
        return await there.chat(request, found.models_url, _dump(named), _nothing)
    file, context = await run_in_threadpool(_exported, job, found.home)
    try:
        url = await unless_gone(request, there.kept.take(file, context))
    except ClientGone:
        return Response(status_code=499)
    return await there.chat(request, url, _dump(body), there.kept.release)


async def _read(request: Request, most: int) -> ChatRequest:
    found = bytearray()
    async for block in request.stream():
        found += block
        if len(found) > most:
            raise Refused(413, "Chat too large", f"more than {most} bytes")
    try:
        return ChatRequest.model_validate_json(bytes(found))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "body"
        raise wrong(where, fault["msg"]) from None


def _dump(body: ChatRequest) -> bytes:
    return json.dumps(body.model_dump(exclude_unset=True)).encode()


def _nothing() -> None:
    """Ollama keeps its own models."""


def _job_of(model: str, found: Services) -> Job | None:
    """The job whose model it is; None for a model of Ollama's."""
    match = _OF_JOB.search(model)
    if not match:
        return None
    job = found.store.find(match[1])
    if job is None or job.removed or not can_chat(job):
        raise Refused(404, "Model not found", f"{model}: no job that has succeeded with an export")
    return job


def _exported(job: Job, home: Path) -> tuple[Path, int]:
    """The job's smallest GGUF on this machine, and the context to serve it with."""
    files = list((home / job.id / "run" / "export").glob("*.gguf"))
    if not files:
        raise Refused(
            503,
            "The model is not on this machine",
            f"{job.id} was exported on {job.host or 'another one'}",
            "give the job deploy, so that Ollama has it",
        )
    file = min(files, key=lambda one: one.stat().st_size)
    wanted = int(job.spec.options.get("num_ctx") or _CONTEXT)
    return file, min(wanted, read_header(file).context_length or wanted)
