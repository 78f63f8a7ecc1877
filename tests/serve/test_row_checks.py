"""The process that reads an upload: what it says is said on, and it outlives nobody."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import httpx
import pytest
from openai_serving import serving

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.serve.row_checks import SMALL, RowChecks

ROW = json.dumps({"messages": [{"role": r, "content": "é" * 200} for r in ("user", "assistant")]})
# Lines with nothing on them, which it takes a minute to read.
ENDLESS = b"\n" * 100_000_000
linux = pytest.mark.skipif(sys.platform != "linux", reason="finds the process in /proc")


def spooled(data: bytes) -> SpooledTemporaryFile[bytes]:
    stream: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(1 << 20)  # noqa: SIM115
    stream.write(data)
    return stream


def test_a_process_says_what_a_thread_says() -> None:
    row = ROW.encode() + b"\n"
    wrong = b'{"messages": [{"role": "user", "content": 5}]}\n'
    told: list[list[str]] = []
    for many in (1, 4000):  # in a thread; in a process, of a file on the disk
        told.append([])
        for end in (b"", wrong, b"\xff\n", b'"\xc3'):
            data = row * many + end
            with spooled(data) as stream:
                try:
                    found = asyncio.run(RowChecks().check(stream, len(data), 4001))
                    assert (found.rows, found.bytes, found.different) == (many, len(data), 1)
                    assert stream.read() == data, "and it stands at its beginning"
                except UsageError as error:
                    said = f"{error.message}|{error.hint}".replace(f"line {many + 1}", "line N")
                    told[-1].append(said)
    assert told[0] == told[1] and len(told[0]) == 3
    data = row * 4001
    assert len(row) < SMALL < len(data)
    with spooled(data) as stream, pytest.raises(UsageError, match="more than 4000 rows"):
        asyncio.run(RowChecks().check(stream, len(data), 4000))


def children(pid: int) -> list[int]:
    """Those of its processes that read an upload."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            if b"jobs.checker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def wait_for(pid: int) -> int:
    return int(until(lambda: children(pid))[0])


def until(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def is_gone(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


@linux
def test_one_that_is_killed_keeps_nothing(tmp_path: Path) -> None:
    data = (ROW + "\n").encode() * 8_000
    with serving(tmp_path) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        answers: list[httpx.Response] = []

        def send() -> None:
            form, file = {"purpose": "fine-tune"}, {"file": ("a.jsonl", data)}
            answers.append(client.post("/v1/files", files=file, data=form))

        thread = threading.Thread(target=send)
        thread.start()
        os.kill(wait_for(os.getpid()), signal.SIGKILL)
        thread.join()
        assert answers[0].status_code == 503
        said = answers[0].json()["error"]["message"]
        assert "the process that reads it ended with -9 (nothing of it is kept; send" in said
        assert client.get("/v1/files").json()["data"] == []
        send()
        assert answers[1].json()["rows"] == 8_000


@linux
def test_it_ends_with_who_waits_for_it(tmp_path: Path) -> None:
    async def cancel() -> int:
        with spooled(ENDLESS) as stream:
            waiting = asyncio.create_task(RowChecks().check(stream, len(ENDLESS), 1))
            child = await asyncio.to_thread(wait_for, os.getpid())
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            return child

    assert is_gone(asyncio.run(cancel())), "the server ends in good order"
    place = tmp_path / "rows"
    place.write_bytes(ENDLESS)
    code = (
        "import asyncio, sys, tempfile\n"
        "from forge_cli.serve.row_checks import RowChecks\n"
        "stream = tempfile.SpooledTemporaryFile(1)\n"
        "stream.write(open(sys.argv[1], 'rb').read())\n"
        "asyncio.run(RowChecks().check(stream, 1 << 30, 1))\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(place)])
    child = wait_for(server.pid)
    server.kill()
    server.wait()
    until(lambda: is_gone(child))


def test_no_process_to_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    data = (ROW + "\n").encode() * 400
    with spooled(data) as stream, pytest.raises(ForgeError, match="no process for it: No such"):
        asyncio.run(RowChecks().check(stream, len(data), 400))
