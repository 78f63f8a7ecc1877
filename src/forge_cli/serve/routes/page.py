"""The web page: files of the package, held in memory, that a browser asks for once."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from forge_cli.serve.problems import Refused

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[1] / "ui"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Scripts and styles of this server's files alone, so that text of a model can do nothing.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True)
class Pages:
    """The files by name, and what changes with any of them."""

    version: str
    files: dict[str, tuple[bytes, bytes]]  # as it is, and by gzip

    @classmethod
    def read(cls, folder: Path) -> Pages:
        """What `folder` holds; the page names its files by the version, so none grows stale."""
        plain = {
            file.name: file.read_bytes()
            for file in sorted(folder.iterdir())
            if file.suffix in _TYPES
        }
        version = hashlib.sha256(b"\0".join(plain.values())).hexdigest()[:12]
        page = plain["index.html"].decode()
        for name in plain:
            page = page.replace(f'="{name}"', f'="/static/{version}/{name}"')
        plain["index.html"] = page.encode()
        return cls(version, {name: (data, gzip.compress(data)) for name, data in plain.items()})


@cache
def pages() -> Pages:
    """The package's."""
    return Pages.read(FOLDER)


@router.get("/")
async def page(request: Request) -> Response:
    """The page; it is asked for anew each time, and is small."""
    return _file(request, "index.html", "no-cache")


@router.get("/static/{path:path}")
async def static(request: Request, path: str) -> Response:
    """A file of the page: `VERSION/NAME` is kept for ever, `NAME` is asked for each time."""
    version, _, name = path.rpartition("/")
    found = pages()
    if name not in found.files or name == "index.html" or version not in ("", found.version):
        raise Refused(404, "No such file")
    lasting = "public, max-age=31536000, immutable"
    return _file(request, name, lasting if version else "no-cache")


def _file(request: Request, name: str, lasting: str) -> Response:
    found = pages()
    tag = f'W/"{found.version}"'
    headers = {**_HEADERS, "Cache-Control": lasting, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    plain, small = found.files[name]
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(
            small,
            headers={**headers, "Content-Encoding": "gzip"},
            media_type=_TYPES[Path(name).suffix],
        )
    return Response(plain, headers=headers, media_type=_TYPES[Path(name).suffix])
