"""Who is let in, how much they may send, and what is told to nobody."""

from __future__ import annotations

import json
import logging
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from serving import Serving, serving

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.serve import limits, server, tokens
from forge_cli.serve.limits import Rates
from forge_cli.serve.protocol import Impatient
from forge_cli.serve.services import Limits

TOKEN = "forge_test-token"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("locked"), token_sha256=tokens.hash_of(TOKEN)) as found:
        yield found


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    small = Limits(body=2000, upload=100_000, per_minute=10_000)
    with serving(tmp_path_factory.mktemp("local"), limits=small) as found:
        yield found


def test_a_token_is_kept_as_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "new" / "token"
    token = tokens.make_token(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and token not in file.read_text()
    assert tokens.is_right(f"Bearer {token}", tokens.read_hash(file))
    with pytest.raises(UsageError, match="is there already"):
        tokens.make_token(file)
    file.chmod(0o640)
    with pytest.raises(UsageError, match="others may read it"):
        tokens.read_hash(file)
    file.chmod(0o600)
    for wrong in (token, "sha256:zz", ""):
        file.write_text(wrong)
        with pytest.raises(UsageError, match="holds no hash"):
            tokens.read_hash(file)


def test_only_this_machine_without_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.com"):
        with pytest.raises(UsageError, match="could start jobs"):
            server.listen(host, 0, with_token=False)
    with server.listen("0.0.0.0", 0, with_token=True) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ForgeError, match="in use"):
            server.listen("0.0.0.0", port, with_token=True)


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x",
     f"Bearer {TOKEN[:-1]}", "Bearer \xff", "Bearer " + "x" * 9000],
)  # fmt: skip
def test_a_wrong_token(locked: Serving, header: str) -> None:
    headers = {"Authorization": header.encode("latin-1")} if header else {}
    for method, path in (
        ("GET", "/jobs"), ("POST", "/fine-tune"), ("GET", "/events"), ("GET", "/metrics"),
        ("GET", "/openapi.json"), ("GET", "/nothing"), ("POST", "/"),
        ("GET", "/static/../jobs"), ("GET", "/static/%2e%2e/jobs"), ("DELETE", "/jobs/x"),
    ):  # fmt: skip
        answer = locked.http.request(method, path, headers=headers)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
    assert locked.http.get("/healthz", headers=headers).status_code == 200
    assert locked.http.get("/readyz", headers=headers).status_code == 200


def test_the_right_token_by_any_name(locked: Serving) -> None:
    for header in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
        headers = {"Authorization": header, "Host": "mini.example"}
        assert locked.http.get("/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "["])
def test_a_name_that_was_bent_to_point_here(local: Serving, host: str) -> None:
    assert local.http.get("/jobs", headers={"Host": host}).status_code == 421
    assert local.http.get("/jobs", headers={"Host": "localhost:1"}).status_code == 200
    assert local.http.get("/jobs", headers={"Host": "[::1]:80"}).status_code == 200


def test_other_sites_are_kept_out(local: Serving) -> None:
    own = f"127.0.0.1:{local.port}"
    for headers in (
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:1"}, {"Origin": "http://["}, {"Origin": ""},
    ):  # fmt: skip
        for path in ("/jobs/ftjob-000001/cancel", "/fine-tune"):
            assert local.http.post(path, headers=headers).status_code == 403, headers
    assert local.http.get("/jobs", headers={"Origin": f"http://{own}"}).status_code == 200
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = local.http.options("/fine-tune", headers=asked)
    assert answer.status_code == 403
    answer = local.http.get("/jobs")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "server" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_bodies_that_are_too_long(local: Serving) -> None:
    big = b'{"source": "' + b"x" * 5000 + b'"}'
    kind = {"Content-Type": "application/json"}
    assert local.http.post("/fine-tune", content=big, headers=kind).status_code == 413

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(big), 100):
            yield big[start : start + 100]

    answer = local.http.post("/fine-tune", content=chunks(), headers=kind)
    assert answer.status_code == 413 and answer.json()["title"] == "Body too large"
    # Of each path but that of uploads; a length that is a lie ends the connection.
    raw(
        local, "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", 413
    )
    raw(local, "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400)
    raw(local, "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
               "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 404)  # fmt: skip
    raw(local, f"GET /{'x' * 70_000}", 400)
    raw(local, "GET / HTTP/9.9\r\nHost: \x00\r\n\r\n", 400)
    assert local.http.get("/healthz").status_code == 200


def test_slow_clients(local: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.3)
    head = "POST /fine-tune HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert "connection: close" in raw(local, head + "Content-Length: 100\r\n\r\n{", 408)
    monkeypatch.setattr(Impatient, "patience", 0.3)
    for begun in ("", "GET /jobs HT", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with closing(socket.create_connection(("127.0.0.1", local.port), timeout=10)) as held:
            held.sendall(begun.encode())
            began = time.monotonic()
            with suppress(ConnectionResetError):
                while held.recv(1 << 16):
                    pass
            assert time.monotonic() - began < 5
    assert local.http.get("/healthz").status_code == 200


def raw(local: Serving, text: str, status: int) -> str:
    with closing(socket.create_connection(("127.0.0.1", local.port), timeout=10)) as connection:
        connection.sendall(text.encode("latin-1"))
        answer = connection.recv(1 << 16).decode("latin-1")
    assert answer.startswith(f"HTTP/1.1 {status} "), answer
    return answer


def test_hasty_clients(tmp_path: Path) -> None:
    with serving(tmp_path, limits=Limits(per_minute=3)) as found:
        statuses = [found.http.post("/jobs/x/cancel") for _ in range(5)]
        assert [a.status_code for a in statuses] == [404, 404, 404, 429, 429]
        assert 1 <= int(statuses[-1].headers["retry-after"]) <= 20
        assert found.http.get("/jobs").status_code == 200


def test_rates_are_of_each_client() -> None:
    rates = Rates(60)
    assert [rates.wait("a", 0.0) for _ in range(61)] == [0] * 60 + [1]
    assert rates.wait("b", 0.0) == 0 and rates.wait("a", 1.1) == 0 and rates.wait("a", 1.2) == 1
    for number in range(20_000):
        rates.wait(str(number), 2.0)
    assert len(rates._clients) == 10_000


def test_the_log_tells_what_was_asked_and_no_secret(
    locked: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "forge.access"):
        locked.http.get("/jobs?state=failed", headers={"Authorization": f"Bearer {TOKEN}"})
        locked.http.get("/jobs/a%0ab", headers={"Authorization": "Bearer other-secret"})
        time.sleep(0.1)
    lines = [json.loads(r.message) for r in caplog.records if r.name == "forge.access"]
    assert [(line["path"], line["status"]) for line in lines] == [
        ("/jobs", 200),
        ("/jobs/a\nb", 401),
    ]
    assert TOKEN not in caplog.text and "other-secret" not in caplog.text
    assert "failed" not in caplog.text
