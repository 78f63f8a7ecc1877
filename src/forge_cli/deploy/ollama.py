"""A conversation with one Ollama server.

The `ollama` client serves where it can; `httpx`, on which it is built, does what it does
not: ask for a blob before sending it, show the progress of an upload, read the system
prompt back. Whatever goes wrong comes out as one ForgeError.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import ollama
from pydantic import ValidationError

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Task
from forge_cli.deploy.address import is_loopback

BLOCK = 1 << 20  # bytes read and sent at a time
MB = 1e6

_AGAIN = "run the same command again; what has arrived is not sent twice"
# A server may read gigabytes before it answers, but it accepts a connection at once.
_TIMEOUT = httpx.Timeout(600, connect=5)


@dataclass(frozen=True)
class Shown:
    """What the server says it keeps for a model."""

    template: str
    system: str
    parameters: dict[str, list[str]]  # every value as the server writes it, unquoted


class Server:
    """An Ollama server at `url`; use it as a context manager."""

    def __init__(self, url: str) -> None:
        self.url = url
        # A proxy of the environment has no place between this machine and itself.
        trust_env = not is_loopback(url)
        self._client = ollama.Client(host=url, timeout=_TIMEOUT, trust_env=trust_env)
        key = os.environ.get("OLLAMA_API_KEY")  # the ollama client sends it by itself
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=url, timeout=_TIMEOUT, trust_env=trust_env, headers=headers
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()
        self._client.close()  # type: ignore[no-untyped-call]

    def version(self) -> str:
        """The server's version.

        Raises:
            ForgeError: nothing answers at the URL, or what answers is no Ollama.
        """
        try:
            answer = self._http.get("/api/version")
        except (httpx.TransportError, UnicodeError):  # UnicodeError: no host name at all
            raise ForgeError(
                f"no Ollama server at {self.url}",
                "start it with: ollama serve, then run the same command again",
            ) from None
        try:
            return str(answer.raise_for_status().json()["version"])
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError):
            raise ForgeError(
                f"{self.url} answers {answer.status_code}, but not as an Ollama server",
                "check --host",
            ) from None

    def has_blob(self, digest: str) -> bool:
        """Whether the server holds the file with this `sha256:…` digest."""
        with self._speaking("asking for the blob"):
            answer = self._http.head(f"/api/blobs/{digest}")
            if answer.status_code != httpx.codes.NOT_FOUND:
                answer.raise_for_status()
            return answer.is_success

    def upload(self, path: Path, digest: str, task: Task) -> None:
        """Send a file in blocks; `task` advances in megabytes. The server checks the digest."""
        size = path.stat().st_size
        # With a length, a server can tell a broken upload from a finished one.
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        with self._speaking("the upload"):
            answer = self._http.post(
                f"/api/blobs/{digest}", content=_blocks(path, size, task), headers=headers
            )
            if answer.is_error:
                answer.read()
            answer.raise_for_status()

    def create(self, body: Mapping[str, Any]) -> Iterator[str]:
        """Make the model; yield the server's statuses.

        Raises:
            ForgeError: refused, failed in the middle, or the stream ended without success.
        """
        status = ""
        with self._speaking("creating the model"):
            for progress in self._client.create(**body, stream=True):
                if progress.status:
                    status = progress.status
                    yield status
        if status != "success":
            raise ForgeError(
                f"{self.url}: creating the model ended after {status or 'nothing'!r}, not success",
                _AGAIN,
            )

    def show(self, name: str) -> Shown:
        """What the server keeps under `name`."""
        with self._speaking("showing the model"):
            # The client's ShowResponse has no field for the system prompt.
            answer = self._http.post("/api/show", json={"model": name}).raise_for_status().json()
            return Shown(
                template=answer.get("template") or "",
                system=answer.get("system") or "",
                parameters=parse_parameters(answer.get("parameters") or ""),
            )

    def chat(
        self, name: str, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]
    ) -> str:
        """The whole answer to a chat."""
        with self._speaking("the smoke prompt"):
            answer = self._client.chat(model=name, messages=list(messages), options=options)
            return answer.message.content or ""

    @contextmanager
    def _speaking(self, doing: str) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            raise self._refused(doing, error.response.text, error.response.status_code) from None
        except ollama.ResponseError as error:
            raise self._refused(doing, error.error, error.status_code) from None
        except (httpx.TransportError, ConnectionError) as error:
            cause = str(error) or type(error).__name__
            raise ForgeError(f"{self.url}: {doing} broke off: {_one_line(cause)}", _AGAIN) from None
        except (ValidationError, ValueError, AttributeError, TypeError):
            raise ForgeError(
                f"{self.url}: {doing}: the answer is not what Ollama sends", "check --host"
            ) from None

    def _refused(self, doing: str, text: str, status: int) -> ForgeError:
        with suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["error"]
        code = f" ({status})" if status > 0 else ""
        return ForgeError(
            f"{self.url}: {doing} failed{code}: {_one_line(str(text)) or 'no reason given'}",
            "see the server's log; then run the same command again",
        )


def _blocks(path: Path, size: int, task: Task) -> Iterator[bytes]:
    sent = 0
    with open(path, "rb") as stream:
        # Never more than was announced: a file that grew gets caught by its digest.
        while block := stream.read(min(BLOCK, size - sent)):
            yield block
            sent += len(block)
            task.advance(len(block) / MB)
    if sent != size:
        raise ForgeError(f"{path}: changed during the upload", "run the same command again")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:300]}…"


def parse_parameters(text: str) -> dict[str, list[str]]:
    """The `parameters` of /api/show: one `name   value` a line, texts in Go's quotes."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        value = value.strip()
        if value.startswith('"'):
            try:
                value = json.loads(value)
            except ValueError:
                value = value[1:-1]
        if name:
            found.setdefault(name, []).append(value)
    return found
