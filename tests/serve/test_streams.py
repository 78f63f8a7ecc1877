"""Server-sent events: exact resumption, ends in order, slow readers, many readers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Serving, serving

from forge_cli.serve import channels, streams
from forge_cli.serve.services import Limits
from forge_cli.serve.watcher import Watcher

Message = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("streams")) as found:
        yield found


@contextmanager
def following(server: Serving, path: str, last: str = "") -> Iterator[Iterator[Message]]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    with server.http.stream("GET", path, headers=headers) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield messages(answer.iter_lines())


def messages(lines: Iterator[str]) -> Iterator[Message]:
    told: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        assert line != ": alive", "nothing came"
        if name:
            told[name] = value
        elif "data" in told:
            yield told["id"], told["event"], json.loads(told["data"])
            told = {}


def take(found: Iterator[Message], count: int) -> list[Message]:
    return [next(found) for _ in range(count)]


def write(server: Serving, job_id: str, number: int) -> None:
    server.store.append("m", job_id, f'{{"step": {number}, "loss": NaN}}\n', number)
    server.store.append("l", job_id, f"line {number}\n", number)


def parts(found: list[Message]) -> list[object]:
    return [
        data["rows"][0]["step"] if kind == "metrics" else data["text"]
        for _, kind, data in found
        if kind != "job"
    ]


def test_a_client_goes_on_exactly_where_it_was(server: Serving) -> None:
    job_id = server.start()["id"]
    server.store.add(job_id, "claimed", worker="w")
    for number in range(3):
        write(server, job_id, number)
    path = f"/jobs/{job_id}/events"
    with following(server, path) as found:
        first = take(found, 7)
        assert [m[:2] for m in first[:4]] == [
            ("0.1.0", "metrics"), ("0.2.0", "metrics"), ("0.3.0", "metrics"), ("0.3.1", "log"),
        ]  # fmt: skip
        assert first[0][2] == {"rows": [{"step": 0, "loss": None}]}
        assert first[6][:2] == ("2.3.3", "job") and first[6][2]["state"] == "running"
        write(server, job_id, 3)
        assert [m[0] for m in take(found, 2)] == ["2.4.3", "2.4.4"]
        server.store.put(f"p:{job_id}", {"stage": "train", "done": 3, "total": 9})
        identifier, kind, data = next(found)
        assert (identifier, kind, data["progress"]["done"]) == ("2.4.4", "job", 3)
    for place in range(len(first)):
        with following(server, path, last=first[place][0]) as found:
            left = len([m for m in first[place + 1 :] if m[1] != "job"]) + 2
            assert parts(take(found, left)) == [*parts(first[place + 1 : 3]), 3, *parts(
                first[max(3, place + 1) : 6]), "line 3\n"] if place < 3 else True  # fmt: skip
    with following(server, path, last="2.3.2") as found:
        assert parts(take(found, 3)) == [3, "line 2\n", "line 3\n"]


def test_the_end_comes_after_all_else(server: Serving) -> None:
    job_id = server.start()["id"]
    server.store.add(job_id, "claimed", worker="w")

    def work() -> None:
        for number in range(130):
            write(server, job_id, number)
        server.store.add(job_id, "ended", attempt=1, state="failed", data={})

    thread = threading.Thread(target=work)
    with following(server, f"/jobs/{job_id}/events") as found:
        thread.start()
        seen: list[Message] = []
        for message in found:
            seen.append(message)
            if message[1] == "job" and message[2]["state"] == "failed":
                break
    thread.join()
    assert sorted(map(str, parts(seen))) == sorted(
        [str(n) for n in range(130)] + [f"line {n}\n" for n in range(130)]
    )
    with following(server, f"/jobs/{job_id}/events", last=seen[-1][0]) as found:
        server.http.post(f"/jobs/{job_id}/retry")
        with pytest.raises(httpx.HTTPStatusError):
            server.http.post(f"/jobs/{job_id}/retry").raise_for_status()
        assert next(found)[2]["state"] == "queued", "nothing twice"


def test_what_is_no_longer_in_memory_comes_from_the_store(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "_KEPT", 200)
    job_id = server.start()["id"]
    for number in range(130):
        write(server, job_id, number)
    with following(server, f"/jobs/{job_id}/events") as found:
        seen = take(found, 261)
    assert parts([m for m in seen if m[1] == "metrics"]) == list(range(130))
    assert parts([m for m in seen if m[1] == "log"]) == [f"line {n}\n" for n in range(130)]
    assert seen[-1][:2] == ("1.130.130", "job")


def test_all_jobs(server: Serving) -> None:
    first = server.start()["id"]
    with following(server, "/events") as found:
        while next(found)[2]["id"] != first:
            pass
        second = server.start(tags={"n": "2"})["id"]
        identifier, kind, data = next(found)
        assert (kind, data["id"], data["tags"]) == ("job", second, {"n": "2"})
    server.http.post(f"/jobs/{first}/cancel")
    third = server.start()["id"]
    server.http.delete(f"/jobs/{first}")
    with following(server, "/events", last=identifier) as found:
        missed = take(found, 2)
        assert [(kind, data["id"]) for _, kind, data in missed] == [
            ("job", third), ("removed", first),
        ]  # fmt: skip
    with following(server, "/events", last=missed[-1][0]) as found:
        server.http.post(f"/jobs/{third}/cancel")
        assert next(found)[2]["state"] == "cancelled", "nothing twice"


def test_a_removed_job_ends_its_stream(server: Serving) -> None:
    job_id = server.start()["id"]
    server.http.post(f"/jobs/{job_id}/cancel")
    with following(server, f"/jobs/{job_id}/events") as found:
        assert next(found)[1] == "job"
        server.http.delete(f"/jobs/{job_id}")
        assert [kind for _, kind, _ in found] == ["removed"]
    answer = server.http.get(f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 404


def test_a_reader_that_reads_nothing_is_let_go(
    server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SEND", 0.4)
    job_id = server.start()["id"]
    for number in range(120):
        server.store.append("l", job_id, "x" * 60_000 + "\n", number)
    with closing(socket.socket()) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        slow.sendall(
            f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        wait_for_streams(server, 1)
        assert server.http.get(f"/jobs/{job_id}").status_code == 200
        wait_for_streams(server, 0)


def test_streams_are_counted(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(streams=2)) as server:
        with following(server, "/events"), following(server, "/events") as _:
            wait_for_streams(server, 2)
            answer = server.http.get("/events")
            assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
        wait_for_streams(server, 0)
        began = time.monotonic()
        stream = server.http.stream("GET", "/events")
        stream.__enter__()
    # The server above has ended, though a stream was open.
    assert time.monotonic() - began < 8
    stream.__exit__(None, None, None)


def wait_for_streams(server: Serving, count: int) -> None:
    deadline = time.monotonic() + 10
    while f"forge_streams {count}\n" not in (text := server.http.get("/metrics").text):
        assert time.monotonic() < deadline, text
        time.sleep(0.02)


def test_how_far_a_job_came_is_known_to_a_server_that_starts_later(server: Serving) -> None:
    job_id = server.start()["id"]
    server.store.add(job_id, "claimed", worker="w")
    server.store.put(f"p:{job_id}", {"stage": "cloning", "done": 2, "total": 9})
    server.store.add(job_id, "ended", attempt=1, state="failed", data={"error": "e"})
    later = Watcher(server.store)
    later.look()
    known = later.get(job_id)
    assert known and (known.job.state, known.progress["stage"]) == ("failed", "cloning")
