"""Chats through the service: by Ollama, as they come, and no longer than somebody listens."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai_serving import serving

from forge_cli.core.errors import ForgeError
from forge_cli.serve.jobs import JobStore, Spec
from forge_cli.serve.jobs.storage import open_storage
from forge_cli.serve.kept import Kept
from tiny_served import ollama_with, tiny_gguf

ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "one"}], "max_tokens": 6, "temperature": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("tiny"))


def test_ollama_answers(gguf: Path, tmp_path: Path) -> None:
    with (
        ollama_with(gguf, "me/tiny:v1") as ollama,
        serving(tmp_path, models_url=ollama.url) as (url, _),
    ):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        [model] = client.models.list()
        assert (model.id, model.owned_by) == ("me/tiny:v1", "ollama")
        assert client.models.retrieve("me/tiny:v1") == model
        whole = client.chat.completions.create(model=model.id, **ASK)
        parts = list(client.chat.completions.create(model=model.id, **ASK, stream=True))
        text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        assert text and text == whole.choices[0].message.content
        with pytest.raises(openai.NotFoundError, match="model 'none:latest' not found"):
            client.chat.completions.create(model="none", **ASK)
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("none")
        named: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": {
            "type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"]}}}  # fmt: skip
        told = client.chat.completions.create(
            model=model.id, **ASK | {"max_tokens": 60}, response_format=named
        )
        assert json.loads(told.choices[0].message.content or "") == {"n": 7}, "passed on whole"


def test_what_cannot_be_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as (url, _):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        assert list(client.models.list()) == [], "no Ollama is no error here"
        with pytest.raises(openai.InternalServerError, match="No server answers chats") as error:
            client.chat.completions.create(model="any", **ASK)
        assert error.value.status_code == 503
        for body, param in (
            (b"{", "body"), (b"[]", "body"), (b'{"messages": [{}]}', "model"),
            (b'{"model": "a", "messages": []}', "messages"), (b"\xff", "body"),
            (b'{"model": "a", "messages": [{}], "stream": "maybe"}', "stream"),
        ):  # fmt: skip
            answer = httpx.post(f"{url}/v1/chat/completions", content=body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


class Upstream:
    """Sends a part when it is told to, and says when nobody listens any more."""

    def __init__(self, head: bytes) -> None:
        self.head, self.breaks, self.speaks = head, False, True
        self.go, self.asked, self.left = threading.Event(), threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self.listener.accept()
        with closing(connection):
            while b"messages" not in connection.recv(1 << 16):
                pass
            connection.sendall(self.head)
            self.asked.set()
            self.go.wait(20)
            if self.breaks:
                return
            if self.speaks:
                connection.sendall(b"10\r\ndata: [DONE]\n\n\n\n\r\n")
            if connection.recv(1) == b"":
                self.left.set()


SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST = b"b\r\ndata: {}\n\n\n\r\n"


@pytest.fixture
def relayed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Upstream]]:
    upstream = Upstream(request.param)
    with closing(upstream.listener), serving(tmp_path, models_url=upstream.url) as (url, _):
        yield f"{url}/v1/chat/completions", upstream


@pytest.mark.parametrize("relayed", [SSE + FIRST], indirect=True, ids=["first"])
def test_a_part_is_passed_on_before_the_next_is_there(relayed: tuple[str, Upstream]) -> None:
    url, upstream = relayed
    body = {"model": "any", "messages": [{}], "stream": True}
    with httpx.stream("POST", url, json=body, timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        parts = answer.iter_raw()
        assert next(parts) == b"data: {}\n\n\n" and not upstream.go.is_set()
        upstream.go.set()
        assert next(parts) == b"data: [DONE]\n\n\n\n"
        assert not upstream.left.is_set()
    assert upstream.left.wait(20), "who answers is told that the client has hung up"


@pytest.mark.parametrize("relayed", [b"", SSE], indirect=True, ids=["silent", "head"])
def test_who_hangs_up_before_the_first_part_ends_the_answer(
    relayed: tuple[str, Upstream],
) -> None:
    url, upstream = relayed
    body = json.dumps({"model": "any", "messages": [{}]}).encode()
    host, port = url.split("/")[2].split(":")
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(head.encode() + body)
        assert upstream.asked.wait(20)
        upstream.speaks = False  # it thinks, and listens
        upstream.go.set()
        assert not upstream.left.wait(0.3)
    assert upstream.left.wait(20)
    assert httpx.get(url.replace("/v1/chat/completions", "/healthz")).status_code == 200


@pytest.mark.parametrize("relayed", [SSE + FIRST], indirect=True, ids=["first"])
def test_an_answer_that_breaks_off_is_an_error(relayed: tuple[str, Upstream]) -> None:
    url, upstream = relayed
    upstream.breaks = True
    client = openai.OpenAI(base_url=url.removesuffix("/chat/completions"), api_key="none")
    parts = client.chat.completions.create(model="any", messages=ASK["messages"], stream=True)
    upstream.go.set()
    with pytest.raises(openai.APIError, match="broke off"):
        list(parts)


def test_one_server_is_kept_and_ended_when_idle(gguf: Path, tmp_path: Path) -> None:
    other = tiny_gguf(tmp_path, seed=1)

    async def use() -> None:
        kept = Kept(idle=0.2)
        first, same = await asyncio.gather(kept.take(gguf, 256), kept.take(gguf, 256))
        assert first == same
        waits = asyncio.create_task(kept.take(other, 256))
        kept.release()
        await asyncio.sleep(0.5)
        assert not waits.done() and kept.file == gguf, "one still uses it"
        kept.release()
        assert await waits != first and kept.file == other
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"{first}/health")
            assert (await client.get(f"{await waits}/health")).status_code == 200
        gone = asyncio.create_task(kept.take(gguf, 256))
        await asyncio.sleep(0)
        gone.cancel()
        kept.release()
        while kept.server:
            await asyncio.sleep(0.05)
        assert await kept.take(gguf, 256), "started again"
        process = kept.server
        assert process
        process.stop()  # as a crash does
        kept.release()
        assert await kept.take(gguf, 256) and kept.server is not process
        kept.release()
        with pytest.raises(ForgeError, match="llama-server ends"):
            await kept.take(Path(__file__), 256)
        await kept.close()

    asyncio.run(use())


def test_what_it_runs_ends_with_a_server_that_is_killed(gguf: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = JobStore(open_storage(f"sqlite:///{home}/jobs.db"))
    job, _ = store.create(Spec(source="/repo", export=True))
    store.add(job.id, "claimed", worker="w")
    store.add(job.id, "ended", attempt=1, state="succeeded", data={"result": {"record": "run"}})
    file = home / job.id / "run" / "export" / "model.gguf"
    file.parent.mkdir(parents=True)
    shutil.copy(gguf, file)
    command = [sys.executable, "-m", "forge_cli", "serve", "--port", "0", "--home", str(home)]
    with subprocess.Popen([*command, "--workers", "0"], stderr=subprocess.PIPE, text=True) as serve:
        try:
            assert serve.stderr
            url = next(
                found[1] for line in serve.stderr if (found := re.search(r"(http://\S+)", line))
            )
            body = ASK | {"model": job.id}
            answer = httpx.post(
                f"{url}/v1/chat/completions", json=body, timeout=60, trust_env=False
            )
            assert answer.status_code == 200, answer.text
            assert processes_on(file)
        finally:
            serve.kill()
    deadline = time.monotonic() + 10
    while processes_on(file):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_on(file: Path) -> int:
    found = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True, check=True)
    return sum(str(file) in line for line in found.stdout.splitlines())
