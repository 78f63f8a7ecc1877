"""What Forge asks of an Ollama server.

The `ollama` client serves where it can; `httpx`, on which it is built, does what it does
not: ask for a blob before sending it, show the progress of an upload, read the system
prompt back, show how a prompt is rendered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Task
from forge_cli.deploy.address import full_name
from forge_cli.deploy.connection import AGAIN, Connection

BLOCK = 1 << 20  # bytes read and sent at a time
MB = 1e6

Turns = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Shown:
    """What the server says it keeps for a model."""

    template: str
    system: str
    parameters: dict[str, list[str]]  # every value as the server writes it, unquoted
    metadata: Mapping[str, Any]  # the key-values of its GGUF


@dataclass(frozen=True)
class Stored:
    """A model on the server: two names with one digest are one model."""

    name: str
    digest: str
    size: int  # bytes
    modified: str  # ISO 8601, as the server writes it


class Server(Connection):
    """An Ollama server at `url`; use it as a context manager.

    Every method raises ForgeError: refused, broken off, or not an answer of Ollama's.
    """

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
            ForgeError: also where it failed in the middle, or ended without success.
        """
        yield from self._followed("creating the model", self._client.create, **body)

    def pull(self, name: str) -> Iterator[str]:
        """Have the server fetch a model of its own library; yield its statuses."""
        yield from self._followed(f"pulling {name}", self._client.pull, model=name)

    def _followed(self, doing: str, call: Any, **request: Any) -> Iterator[str]:
        status = ""
        with self._speaking(doing):
            for progress in call(**request, stream=True):
                if progress.status:
                    status = progress.status
                    yield status
        if status != "success":
            raise ForgeError(
                f"{self.url}: {doing} ended after {status or 'nothing'!r}, not success", AGAIN
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
                metadata=answer.get("model_info") or {},
            )

    def models(self) -> list[Stored]:
        """Every model that the server has."""
        with self._speaking("listing the models"):
            answer = self._http.get("/api/tags").raise_for_status().json()
            return [
                Stored(one["name"], one["digest"], one["size"], one.get("modified_at") or "")
                for one in answer["models"] or []
            ]

    def find(self, name: str) -> Stored | None:
        """The model under `name`, if there is one; case is not told apart."""
        wanted = full_name(name).lower()
        return next((one for one in self.models() if one.name.lower() == wanted), None)

    def loaded(self) -> list[str]:
        """The names of the models in the server's memory."""
        with self._speaking("asking what is loaded"):
            return [str(one.model) for one in self._client.ps().models]

    def copy(self, source: str, target: str) -> None:
        """Give the model `source` the further name `target`, which may be another's until now."""
        with self._speaking(f"naming it {target}"):
            self._client.copy(source, target)

    def delete(self, name: str) -> None:
        """Take a name away; the model goes with its last one."""
        with self._speaking(f"deleting {name}"):
            self._client.delete(name)

    def load(self, name: str) -> None:
        """Bring a model into the server's memory, so that the first question is not slow."""
        with self._speaking(f"loading {name}"):
            self._client.generate(model=name, prompt="")

    def stop(self, name: str) -> None:
        """Take a model out of the server's memory."""
        with self._speaking(f"stopping {name}"):
            self._client.generate(model=name, prompt="", keep_alive=0)

    def render(self, name: str, messages: Turns) -> str:
        """The prompt that the server would give the model for a chat (Ollama 0.11.5 and later)."""
        body = {
            "model": name,
            "messages": list(messages),
            "stream": False,
            "_debug_render_only": True,
        }
        with self._speaking("rendering a prompt"):
            answer = self._http.post("/api/chat", json=body).raise_for_status().json()
            return str(answer["_debug_info"]["rendered_template"])

    def chat(self, name: str, messages: Turns, options: Mapping[str, Any]) -> str:
        """The whole answer to a chat."""
        with self._speaking("the smoke prompt"):
            answer = self._client.chat(model=name, messages=list(messages), options=options)
            return answer.message.content or ""


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
