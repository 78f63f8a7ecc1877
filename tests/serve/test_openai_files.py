"""Uploads: what is kept is what was sent, and what is hostile is refused by a server that lives."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai_serving import SMALL, serving

from forge_cli.core.records import Example
from forge_cli.serve.jobs.chats import examples_of, split_examples
from forge_cli.serve.services import Services
from tiny_train import examples


def chat(*turns: Any) -> str:
    """A line; turns are the contents of user and assistant in turn, or messages."""
    roles = ("user", "assistant")
    messages = [
        turn if isinstance(turn, dict) else {"role": roles[n % 2], "content": turn}
        for n, turn in enumerate(turns)
    ]
    return json.dumps({"messages": messages}, ensure_ascii=False) + "\n"


GOOD = chat("a?", "b.") + chat("é?", "\u2028 ü.", "c?", "d.")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Services]]:
    with (
        serving(tmp_path_factory.mktemp("files"), limits=SMALL) as (url, found),
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield client, found


@pytest.fixture
def client(place: tuple[httpx.Client, Services]) -> Iterator[httpx.Client]:
    """Whatever a test does, the server is well afterwards, and has kept nothing of it."""
    client, found = place
    for file in client.get("/v1/files").json()["data"]:
        assert client.delete(f"/v1/files/{file['id']}").json()["deleted"] is True
    yield client
    assert client.get("/healthz").status_code == 200
    rows = found.store.storage.sql("select key from kv", results=True)
    kept = {str(row[0]) for row in rows if str(row[0]).startswith(("f:", "F:", "x:"))}
    files = client.get("/v1/files").json()["data"]
    assert len([key for key in kept if key.startswith("F:")]) == len(files)
    assert {key.split(":")[1] for key in kept if key[0] == "f"} == {file["id"] for file in files}


def send(client: httpx.Client, data: bytes, name: str = "a.jsonl", **form: str) -> httpx.Response:
    form = {"purpose": "fine-tune"} | form
    return client.post("/v1/files", files={"file": (name, data)}, data=form)


def test_what_is_sent_is_kept(client: httpx.Client) -> None:
    data = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode() + b"\n"
    file = send(client, data).json()
    assert file["object"] == "file" and file["rows"] == 2 and file["kind"] == "chat"
    assert file["bytes"] == len(data) and file["status"] == "processed"
    assert client.get(f"/v1/files/{file['id']}").json() == file
    got = client.get(f"/v1/files/{file['id']}/content")
    assert got.content == data and got.headers["x-content-type-options"] == "nosniff"
    big = "".join(chat(f"{n}?", "x" * 20_000) for n in range(49)).encode()
    other = send(client, big).json()
    assert client.get(f"/v1/files/{other['id']}/content").content == big, "in several blocks"
    page = client.get("/v1/files", params={"limit": 1}).json()
    assert [one["id"] for one in page["data"]] == [other["id"]] and page["has_more"]
    rest = client.get("/v1/files", params={"after": page["last_id"]}).json()
    assert [one["id"] for one in rest["data"]] == [file["id"]] and not rest["has_more"]


def test_records_of_forge_are_rows_too(client: httpx.Client) -> None:
    data = "".join(row.model_dump_json() + "\n" for row in examples()).encode()
    assert send(client, data).json()["kind"] == "example"
    mixed = send(client, data + GOOD.encode())
    assert mixed.status_code == 400 and "chat after example" in mixed.json()["error"]["message"]
    verdict = b'{"record": "verdict", "id": "a", "check": "c", "reason": "r"}\n'
    assert "which does not train" in send(client, verdict).json()["error"]["message"]


TOOL = {"role": "assistant", "content": "", "tool_calls": []}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc"}}]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"\n \n", "no rows"),
        (b"", "no rows"),
        (b"PK\x03\x04 zip", "line 2: not JSON"),
        (b'{"messages": \xff}', "line 2: not UTF-8 at byte 13"),
        (b"[1]", "line 2: not a JSON object"),
        (b"NaN", "line 2: not JSON"),
        (b'{"messages": NaN}', "line 2: not JSON"),
        (b"[" * 100_000, "line 2: not JSON"),
        (b'{"messages": "\\ud800"}', "line 2: not JSON"),
        (b"9" * 50_000, "line 2: not"),
        (b"{}", "line 2: messages: Field required"),
        (b'{"record": 5}', "line 2: a record '5'"),
        (b'{"record": "example", "documents": [' + b"{}," * 300_000 + b"0]}", "of more than 10000"),
        (b'{"record": "example"}', "line 2: id: Field required"),
        (chat("a?").encode(), "line 2: messages: List should have at least 2"),
        (chat("a?", "b.", "c?").encode(), "the last message must be the assistant's"),
        (chat("a?", "  ").encode(), "a message of the assistant is empty"),
        (chat({"role": "assistant", "content": "a"}, "b").encode(), "the first message cannot"),
        (chat("a?", {"role": "assistant", "content": "b", "weight": 0}).encode(), "a weight"),
        (chat("a?", TOOL).encode(), "messages.1.tool_calls: Extra inputs"),
        (chat(IMAGE, "b").encode(), "messages.0.content"),
        (chat([{"type": "text", "text": "x"}] * 2001, "b").encode(), "messages.0.content"),
        (chat("a?", "b" * 1_000_000 + "é" * 50_000).encode(), "line 2: longer than 1024 KB"),
    ],
)
def test_lines_that_do_not_train(client: httpx.Client, line: bytes, said: str) -> None:
    first = b"" if said == "no rows" else chat("a?", "b.").encode()
    answer = send(client, first + line)
    error = answer.json()["error"]
    assert answer.status_code == 400 and said in error["message"], error
    assert (error["type"], error["param"]) == ("invalid_request_error", "file")
    assert len(answer.content) < 1000, "no more of what was sent than its place"


def test_too_many_and_too_much(client: httpx.Client) -> None:
    rows = (chat("a?", "b.") * 51).encode()
    assert "more than 50 rows" in send(client, rows).json()["error"]["message"]
    # 2,000 turns in 600 KB would be 1,000 rows of up to 600 KB.
    turns = chat(*["x" * 300] * 2000)
    assert "million characters" in send(client, turns.encode()).json()["error"]["message"]
    large = b"".join(chat(f"{n}?", "x" * 40_000).encode() for n in range(24))
    assert [send(client, large).status_code for _ in range(4)] == [200, 200, 200, 413]
    assert send(client, chat("a?", "b.").encode()).status_code == 200, (
        "there is room for small ones"
    )


def test_a_body_that_is_too_large(client: httpx.Client) -> None:
    line = chat("a?", "x" * 10_000).encode()
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(100_000):  # a gigabyte
            sent += len(line)
            yield line

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        answer = client.post("/v1/files", content=body(), headers=headers)
        assert answer.status_code == 413 and "too large" in answer.text
    except httpx.TransportError:
        pass  # the server had hung up before all was written
    assert sent < 40e6, "it is not read to its end"
    head = b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2000000000\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
        raw.sendall(head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n")
        assert b" 413 " in raw.recv(1000), "nor begun, where the length is told"


def test_nothing_is_inflated(client: httpx.Client) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)  # 49 KB
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + bomb
    for encoding in ("gzip", "deflate", "br", "gzip, gzip"):
        headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Encoding": encoding}
        answer = client.post("/v1/files", content=form, headers=headers)
        assert answer.status_code == 415
        assert answer.json()["error"]["code"] == "content_encoding_is_not_taken"
    assert "not UTF-8" in send(client, bomb, "a.jsonl.gz").json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\a.jsonl", "a.jsonl"),
        ("/", "file.jsonl"),
        ("a\x1b[31m.jsonl", "a[31m.jsonl"),
        ("n" * 1000, "n" * 200),
    ],
)
def test_a_name_is_no_path(client: httpx.Client, name: str, kept: str) -> None:
    assert send(client, GOOD.encode(), name).json()["filename"] == kept


def test_forms_that_are_none(client: httpx.Client) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    file = part % (b"file", b'; filename="a"', GOOD.encode())
    purpose = part % (b"purpose", b"", b"fine-tune")
    cases: list[tuple[bytes, dict[str, str], int]] = [
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"{}", {}, 415),
        (b"", {"Content-Type": "multipart/form-data"}, 400),
        (b"", form, 400),
        (file + b"--b--", form, 400),
        (purpose + b"--b--", form, 400),
        (part % (b"file", b"", b"text") + purpose + b"--b--", form, 400),
        (file + file + purpose + b"--b--", form, 400),
        (file + purpose + part % (b"expires_after[anchor]", b"", b"x") + b"--b--", form, 400),
        (part % (b"purpose", b"", b"x" * 100_000) + file + b"--b--", form, 400),
        (b"--b\r\n" + b"X: " + b"y" * 900_000 + b"\r\n\r\n", form, 400),
        (b"--c\r\n\r\n", form, 400),
    ]
    for body, headers, status in cases:
        answer = client.post("/v1/files", content=body, headers=headers)
        assert answer.status_code == status, (body[:80], answer.text)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    wrong = send(client, GOOD.encode(), purpose="assistants").json()["error"]
    assert wrong["param"] == "purpose"


def test_a_client_that_stops_in_the_middle(client: httpx.Client) -> None:
    host, port = client.base_url.host, client.base_url.port
    for _ in range(20):
        with socket.create_connection((host, port or 80)) as raw:
            raw.sendall(
                b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
                b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
                b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + GOOD.encode()
            )


def test_what_is_not_there(client: httpx.Client) -> None:
    for path in ("/v1/files/file-" + "0" * 24, "/v1/files/x%00y", "/v1/files/..%2fjobs"):
        for method in ("GET", "DELETE"):
            answer = client.request(method, path)
            assert answer.status_code == 404 and answer.json()["error"]["message"]
    error = client.get("/v1/files", params={"limit": 0}).json()["error"]
    assert (error["param"], error["type"]) == ("query.limit", "invalid_request_error")
    assert client.get("/v1/nonsense").json()["error"]["code"] == "not_found"
    assert client.get("/nonsense").json()["title"] == "Not Found", "elsewhere a problem"


def test_what_trains_of_a_chat(tmp_path: Path) -> None:
    told = [
        {"role": "developer", "content": "Be brief."},
        *json.loads(GOOD.split("\n")[1])["messages"],
    ]
    told[2]["weight"] = 0
    [row] = examples_of([json.dumps({"messages": told})], "train")
    assert [m.role for m in row.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert (row.question, row.answer.final, row.documents, row.split) == ("c?", "d.", [], "train")
    lines = [chat(f"{n % 20}?", "a.", "b?", "c.") for n in range(40)]
    rows = split_examples(lines, seed=3, share=0.1, most=24)
    sides: dict[str, set[str | None]] = {}
    for one in rows:
        sides.setdefault(one.messages[0].content, set()).add(one.split)
    assert all(len(side) == 1 for side in sides.values()), "equal chats are on one side"
    assert [side for side in sides.values()].count({"valid"}) == 2 and len(rows) == 80
    assert rows == split_examples(lines, seed=3, share=0.1, most=24)
    other = split_examples(lines, seed=4, share=0.1, most=24)
    assert _valid(rows) != _valid(other), "the seed draws them"
    assert len(_valid(split_examples(lines, seed=3, share=0.4, most=3))) == 3


def _valid(rows: list[Example]) -> set[str]:
    return {row.messages[0].content for row in rows if row.split == "valid"}
