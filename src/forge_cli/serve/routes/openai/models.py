"""`/v1/models`: what can be chatted with."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Literal

import httpx
from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from forge_cli.serve.jobs import Job, JobStore
from forge_cli.serve.jobs.store import number_of
from forge_cli.serve.problems import Refused
from forge_cli.serve.relay import relay
from forge_cli.serve.routes.openai.job_objects import can_chat, model_name, seconds
from forge_cli.serve.services import Services, services

router = APIRouter()
Found = Annotated[Services, Depends(services)]

_MOST = 1000  # jobs that are looked through, the newest first
_PATIENCE = 3.0  # seconds to wait for the list of Ollama's models


class Model(BaseModel):
    """A model, as OpenAI has it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models")
async def list_models(request: Request, found: Found) -> ModelList:
    """Those of the jobs that succeeded, and those that Ollama has; without Ollama the former."""
    own = await run_in_threadpool(_own, found.store)
    return ModelList(data=own + await served(request, found))


@router.get("/models/{model:path}")
async def retrieve(model: str, request: Request, found: Found) -> Model:
    """One model."""
    every = (await list_models(request, found)).data
    for one in every:
        if one.id in (model, f"{model}:latest"):
            return one
    raise Refused(404, "Model not found", model[:200])


def _own(store: JobStore) -> list[Model]:
    jobs: list[Job] = []
    before = ""
    while len(jobs) < _MOST:
        page = store.page(100, before)
        jobs += page
        if len(page) < 100 or number_of(page[-1].id) == 1:
            break
        before = page[-1].id
    return [
        Model(id=model_name(job), created=seconds(job.ended), owned_by="forge")
        for job in jobs
        if can_chat(job)
    ]


async def served(request: Request, found: Services) -> list[Model]:
    """What Ollama has; [] where it does not answer."""
    url = found.models_url.rstrip("/")
    with suppress(httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        client = relay(request).client(url)
        answer = await client.get(f"{url}/api/tags", timeout=_PATIENCE)
        listed: list[dict[str, Any]] = answer.raise_for_status().json()["models"] or []
        return [
            Model(id=one["name"], created=_when(one.get("modified_at")), owned_by="ollama")
            for one in listed
        ]
    return []


def _when(text: str | None) -> int:
    with suppress(ValueError):
        return seconds(text or "")
    return 0
