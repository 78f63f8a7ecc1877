"""`/v1/files`: rows to train on."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Iterator
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from forge_cli.core.errors import UsageError
from forge_cli.serve.jobs.files import FileStore, StoredFile
from forge_cli.serve.jobs.rows import Checked
from forge_cli.serve.openai_form import missing, wrong
from forge_cli.serve.problems import Refused
from forge_cli.serve.row_checks import RowChecks
from forge_cli.serve.services import Services, services

router = APIRouter()
Found = Annotated[Services, Depends(services)]

_AROUND = 64 << 10  # bytes of a form beside the file's own
# With an answer before the body has ended; else the rest of it would be read, to be thrown away.
_CLOSE = {"Connection": "close"}
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": ["fine-tune"]},
                    },
                }
            }
        },
    }
}


class FileObject(BaseModel):
    """A file, as OpenAI has it."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    rows: int
    kind: str

    @classmethod
    def of(cls, one: StoredFile) -> FileObject:
        """The view of a stored file."""
        own = one.model_dump(include={"id", "bytes", "filename", "purpose", "rows", "kind"})
        return cls(created_at=one.created, **own)


class FilePage(BaseModel):
    """GET /v1/files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None


class Deleted(BaseModel):
    """DELETE /v1/files/{id}."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


@router.post("/files", openapi_extra=_FORM)
async def upload(request: Request, found: Found) -> FileObject:
    """Keep a file of rows; each line is checked first, and nothing is kept of one that is wrong."""
    form = await _form(request, found.limits.upload)
    try:
        file, purpose = form.get("file"), form.get("purpose")
        if unknown := sorted(set(form) - {"file", "purpose"}):
            raise wrong(unknown[0][:40], "not known here")
        if purpose != "fine-tune":
            raise wrong("purpose", "must be fine-tune")
        if not isinstance(file, UploadFile):
            raise wrong("file", "must be a file")
        checked = await _check(file, request.app.state.row_checks, found)
        return await run_in_threadpool(_keep, file, checked, found)
    finally:
        await form.close()


async def _check(file: UploadFile, checks: RowChecks, found: Services) -> Checked:
    stream: Any = file.file
    assert isinstance(stream, SpooledTemporaryFile)
    size = file.size or 0
    if size > found.limits.upload:
        raise _too_large(found.limits.upload)
    try:
        return await checks.check(stream, size, found.limits.rows)
    except UsageError as error:
        raise wrong("file", error.message, error.hint) from None


def _keep(file: UploadFile, checked: Checked, found: Services) -> FileObject:
    files = FileStore(found.store)
    if sum(one.bytes for one in files.all()) + checked.bytes > found.limits.stored:
        raise Refused(413, "No room for more files", hint="delete some: DELETE /v1/files/ID")
    return FileObject.of(
        files.add(
            file.file, checked, filename=_plain(file.filename), purpose="fine-tune",
            created=int(time.time()),
        )
    )  # fmt: skip


def _plain(name: str | None) -> str:
    """A file's own name without folders; it is shown and never opened."""
    last = re.split(r"[/\\]", name or "")[-1]
    return "".join(c for c in last if c.isprintable())[:200] or "file.jsonl"


async def _form(request: Request, most: int) -> FormData:
    if request.headers.get("content-encoding", "identity") != "identity":
        # Nothing is inflated, so that no small body becomes a large one.
        hint = "send the file as it is"
        raise Refused(415, "Content-Encoding is not taken", hint=hint, **_CLOSE)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refused(415, "Not a form", hint="send multipart/form-data", **_CLOSE)
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most + _AROUND:
        raise _too_large(most)
    parser = MultiPartParser(
        request.headers, _counted(request, most), max_files=1, max_fields=4, max_part_size=4096
    )
    try:
        return await parser.parse()
    except ClientDisconnect:
        raise Refused(400, "The client went away", **_CLOSE) from None
    except MultiPartException as error:
        raise Refused(400, "Bad form", error.message, **_CLOSE) from None


async def _counted(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    left = most + _AROUND
    async for block in request.stream():
        left -= len(block)
        if left < 0:
            raise _too_large(most)
        yield block


def _too_large(most: int) -> Refused:
    return Refused(413, "File too large", f"more than {most} bytes", "split it", **_CLOSE)


@router.get("/files")
def list_files(
    found: Found,
    purpose: Annotated[str, Query(max_length=40)] = "",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str, Query(max_length=64)] = "",
) -> FilePage:
    """The files, the newest first."""
    every = [one for one in FileStore(found.store).all() if purpose in ("", one.purpose)]
    if order == "asc":
        every.reverse()
    names = [one.id for one in every]
    if after and after not in names:
        raise missing("after", "no such file")
    rest = every[names.index(after) + 1 :] if after else every
    data = [FileObject.of(one) for one in rest[:limit]]
    return FilePage(
        data=data,
        has_more=len(rest) > limit,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
    )


@router.get("/files/{file_id}")
def retrieve(file_id: str, found: Found) -> FileObject:
    """One file."""
    return FileObject.of(find(file_id, found))


@router.get(
    "/files/{file_id}/content",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}},
)
def content(file_id: str, found: Found) -> StreamingResponse:
    """Exactly the bytes that were uploaded."""
    one = find(file_id, found)
    blocks: Iterator[str] = FileStore(found.store).content(one)
    headers = {
        "Content-Length": str(one.bytes),
        "Content-Disposition": f'attachment; filename="{one.id}.jsonl"',
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(
        (block.encode() for block in blocks), headers=headers, media_type="application/jsonl"
    )


@router.delete("/files/{file_id}")
def delete(file_id: str, found: Found) -> Deleted:
    """Forget a file that no open job needs."""
    one = find(file_id, found)
    FileStore(found.store).remove(one)
    return Deleted(id=one.id)


def find(file_id: str, found: Services) -> StoredFile:
    """The file, or Refused with 404."""
    one = FileStore(found.store).find(file_id)
    if one is None:
        raise Refused(404, "File not found", file_id[:64])
    return one
