"""Jobs over HTTP: a real server, a real queue."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Serving, serving

from forge_cli.core.errors import UsageError
from forge_cli.serve.files import find_file, is_plain
from forge_cli.serve.jobs import Spec
from forge_cli.serve.jobs.checks import NotAllowed, check_spec
from forge_cli.serve.jobs.command import begin_with, check_options
from forge_cli.serve.jobs.job import Job
from forge_cli.serve.jobs.retention import remove_old
from forge_cli.serve.jobs.sources import Allowed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("rest")) as found:
        yield found


def is_problem(answer: httpx.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status and told["title"]
    assert all(word in answer.text for word in words), answer.text


def raw_status(server: Serving, path: str) -> int:
    """Of a path as it stands; httpx would shorten it."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", path)
    with closing(connection):
        return connection.getresponse().status


def test_a_job_from_its_start_to_its_removal(server: Serving) -> None:
    body = {"source": str(server.allowed / "repo"), "options": {"steps": 3}, "tags": {"a": "ü"}}
    answer = server.http.post("/fine-tune", json=body)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"] == f"/jobs/{job['id']}"
    assert (job["state"], job["options"], job["tags"]) == ("queued", {"steps": 3}, {"a": "ü"})
    for verb, state in (
        ("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued"),
    ):  # fmt: skip
        answer = server.http.post(f"{job['links']['self']}/{verb}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
        assert server.http.get(job["links"]["self"]).content == answer.content, "seen at once"
    is_problem(server.http.post(f"/jobs/{job['id']}/resume"), 409, "is queued")
    is_problem(server.http.delete(f"/jobs/{job['id']}"), 409, "cancel it before it is removed")
    kinds = [e["kind"] for e in server.http.get(job["links"]["events"]).json()["events"]]
    assert kinds == ["created", "pause", "resumed", "cancel", "retried"]
    later = server.http.get(job["links"]["events"], params={"after": 3}).json()["events"]
    assert [e["number"] for e in later] == [4, 5]
    server.http.post(f"/jobs/{job['id']}/cancel")
    (server.home / job["id"]).mkdir()
    assert server.http.delete(f"/jobs/{job['id']}").status_code == 204
    assert not (server.home / job["id"]).exists()
    is_problem(server.http.get(f"/jobs/{job['id']}"), 404)
    is_problem(server.http.delete(f"/jobs/{job['id']}"), 409)
    assert job["id"] not in server.http.get("/jobs").text


def test_pages(server: Serving) -> None:
    ids = [server.start()["id"] for _ in range(5)]
    server.http.post(f"/jobs/{ids[1]}/cancel")
    seen, before = [], ""
    while True:
        page = server.http.get("/jobs", params={"limit": 2, "before": before}).json()
        seen += [job["id"] for job in page["jobs"]]
        before = page["next"]
        if not before:
            break
    assert seen[:5] == ids[::-1] and len(set(seen)) == len(seen)
    cancelled = server.http.get("/jobs", params={"state": "cancelled"}).json()["jobs"]
    assert [job["id"] for job in cancelled] == [ids[1]]
    for bad in ({"limit": 0}, {"limit": 999}, {"before": "x"}, {"state": "dead"}):
        is_problem(server.http.get("/jobs", params=bad), 422, next(iter(bad)))


def test_an_idempotency_key_makes_one_job(server: Serving) -> None:
    body = {"source": str(server.allowed / "repo")}
    made: list[str] = []

    def post() -> None:
        answer = httpx.post(
            f"{server.url}/fine-tune", json=body, headers={"Idempotency-Key": "k"}, timeout=20
        )
        made.append(answer.json()["id"])

    threads = [threading.Thread(target=post) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6 and len(set(made)) == 1
    key = {"Idempotency-Key": "k"}
    other = server.http.post("/fine-tune", json=body | {"priority": 1}, headers=key)
    is_problem(other, 409, "used for another request")
    for bad in ("", "a b", "x" * 256):
        answer = server.http.post("/fine-tune", json=body, headers={"Idempotency-Key": bad})
        is_problem(answer, 422, "Idempotency-Key")
    server.http.post(f"/jobs/{made[0]}/cancel")
    server.http.delete(f"/jobs/{made[0]}")
    is_problem(server.http.post("/fine-tune", json=body, headers=key), 409, "is removed")


def test_what_another_server_writes_is_seen(server: Serving) -> None:
    repo = str(server.allowed / "repo")
    job, _ = server.store.create(Spec(source=repo))
    assert server.http.get(f"/jobs/{job.id}").json()["state"] == "queued", "a new one at once"
    server.store.add(job.id, "claimed", worker="elsewhere")
    server.store.put(f"p:{job.id}", {"stage": "train", "done": 3, "total": 9, "loss": float("nan")})
    shown = server.until(job.id, "running", seconds=5)
    assert shown["worker"] == "elsewhere"
    while not shown["progress"]["done"]:
        shown = server.until(job.id, "running")
    assert (shown["progress"]["stage"], shown["progress"]["loss"]) == ("train", None)
    text = server.http.get("/metrics").text
    assert 'forge_jobs{state="running"} 1' in text and "forge_queue_up 1" in text
    assert 'route="/jobs/{job_id}",status="200"' in text
    server.store.add(job.id, "ended", attempt=1, state="failed", data={"error": "no luck"})
    assert server.until(job.id, "failed")["error"] == "no luck"


def test_what_a_job_wrote(server: Serving, tmp_path: Path) -> None:
    job_id = server.start()["id"]
    for number in range(120):
        server.store.append("l", job_id, f"line {number}\n", number)
    server.store.append("m", job_id, '{"step": 1, "loss": 2}\n{"step": 2, "loss": NaN}\n', 0)
    server.store.append("m", job_id, '{"step": 1, "loss": 2.5}\n', 1)
    log = server.http.get(f"/jobs/{job_id}/logs")
    assert log.headers["content-type"] == "text/plain; charset=utf-8"
    assert log.text == "".join(f"line {n}\n" for n in range(120))
    assert server.http.get(f"/jobs/{job_id}/logs?start=118").text == "line 118\nline 119\n"
    rows = server.http.get(f"/jobs/{job_id}/metrics").json()["rows"]
    assert rows == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": None}]

    is_problem(server.http.get(f"/jobs/{job_id}/report"), 404, "No report yet")
    assert server.http.get(f"/jobs/{job_id}/artifacts").json() == {"artifacts": []}
    run = server.home / job_id / "run"
    (run / "eval").mkdir(parents=True)
    (run / "eval" / "report.html").write_text("<p>fine")
    (run / "run.json").write_text("0123456789")
    (run / ".lock").write_text("")
    (server.home / job_id / "secret").write_text("s")
    (run / "link").symlink_to(server.home / job_id / "secret")
    (run / "up").symlink_to(server.home / job_id)
    found = server.http.get(f"/jobs/{job_id}/artifacts").json()["artifacts"]
    assert [(f["path"], f["bytes"]) for f in found] == [("eval/report.html", 7), ("run.json", 10)]
    got = server.http.get(found[1]["link"], headers={"Range": "bytes=2-4"})
    assert (got.status_code, got.text) == (206, "234")
    assert got.headers["content-type"] == "application/octet-stream"
    report = server.http.get(f"/jobs/{job_id}/report")
    assert report.text == "<p>fine" and "sandbox" in report.headers["content-security-policy"]
    for path in (
        "../secret", "%2e%2e/secret", "..%2fsecret", "eval/../../secret", "link", "up/secret",
        ".lock", "eval", "%2fetc%2fpasswd", "/etc/passwd", "run.json%00", "none", "a" * 3000,
        "%ff", "eval%5creport.html", "eval//report.html", "./run.json",
    ):  # fmt: skip
        status = raw_status(server, f"/jobs/{job_id}/artifacts/{path}")
        assert status in (404, 422), path
    assert find_file(server.home, job_id, "up/run/run.json") is None
    assert not is_plain("a\ud800") and not is_plain("") and is_plain("a/b.c")


def test_files_of_another_machine_are_there(server: Serving) -> None:
    job_id = server.start()["id"]
    server.store.add(job_id, "claimed", worker="big-mac-123-ab12cd")
    server.store.add(job_id, "ended", attempt=1, state="succeeded")
    assert server.until(job_id, "succeeded")["host"] == "big-mac"
    for part in ("artifacts", "artifacts/run.json", "report"):
        answer = server.http.get(f"/jobs/{job_id}/{part}")
        is_problem(answer, 409, "ran on big-mac, where its files are")
        assert "forge serve on big-mac" in answer.json()["hint"]
    (server.home / job_id / "run").mkdir(parents=True)  # a --home that both have
    assert server.http.get(f"/jobs/{job_id}/artifacts").json() == {"artifacts": []}
    is_problem(server.http.get(f"/jobs/{job_id}/report"), 404, "No report yet")
    # Of a job that ran here, and of one that never ran, nothing is elsewhere.
    job_id = server.start()["id"]
    assert server.http.get(f"/jobs/{job_id}/artifacts").json() == {"artifacts": []}
    server.store.add(job_id, "claimed", worker=f"{socket.gethostname()}-1-ab12cd")
    server.until(job_id, "running")
    assert server.http.get(f"/jobs/{job_id}/artifacts").json() == {"artifacts": []}


@pytest.mark.parametrize(
    ("status", "changes", "said"),
    [
        (403, {"source": "/etc"}, "not in a folder"),
        (403, {"source": "relative"}, "not in a folder"),
        (403, {"source": "https://evil.example/x"}, "not a host"),
        (403, {"source": "file:///etc"}, "git URL"),
        (403, {"source": "https://[x/y"}, "not a URL"),
        (403, {"source": "https://git.example:99999/x"}, "not a URL"),
        (403, {"options": {"model": "/etc/passwd"}}, "options.model"),
        (403, {"options": {"model": "mlx/../../x"}}, "options.model"),
        (403, {"options": {"suites": ["../x.yaml"]}}, "options.suites"),
        (403, {"options": {"sides": ["base", "~/x.gguf"]}}, "options.sides"),
        (422, {"options": {"stepz": 1}}, "unknown setting"),
        (422, {"options": {"steps": 0}}, "steps"),
        (422, {"options": {"execute": True}}, "not open to jobs"),
        (422, {"options": {"test_command": "id"}}, "not open to jobs"),
        (422, {"options": {"host": "http://10.0.0.1"}}, "not open to jobs"),
        (422, {"options": []}, "body.options"),
        (422, {"deploy": "--host=x"}, "body.deploy"),
        (422, {"priority": 101}, "body.priority"),
        (422, {"tags": {str(n): "" for n in range(17)}}, "body.tags"),
        (422, {"sauce": 1}, "body.sauce"),
    ],
)
def test_what_is_refused(server: Serving, status: int, changes: dict[str, Any], said: str) -> None:
    body = {"source": str(server.allowed / "repo")} | changes
    is_problem(server.http.post("/fine-tune", json=body), status, said)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 422), (b"", "application/json", 422),
        (b"\xff\xfe", "application/json", 422), (b"[" * 200_000, "application/json", 400),
        (b'{"source": "\\ud800", "\\udfff": 1}', "application/json", 422),
        (b'{"source": "REPO", "tags": {"a": "\\ud800"}}', "application/json", 422),
        (b'{"source": "REPO", "options": {"clip": NaN}}', "application/json", 422),
        (b'{"source": "REPO", "options": {"clip": 1e999}}', "application/json", 422),
        (b'{"source": "REPO"}', "text/plain", 422), (b"source=REPO", "application/xml", 422),
        (b'{"source": "REPO", "options": {"steps": ' + b"9" * 5000 + b"}}", "application/json", 0),
    ],
)  # fmt: skip
def test_malformed_bodies(server: Serving, body: bytes, kind: str, status: int) -> None:
    body = body.replace(b"REPO", str(server.allowed / "repo").encode())
    answer = server.http.post("/fine-tune", content=body, headers={"Content-Type": kind})
    assert answer.status_code in ((status,) if status else (400, 422)), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert server.http.get("/healthz").status_code == 200


def test_wrong_ways_to_ask(server: Serving) -> None:
    is_problem(server.http.get("/nothing"), 404)
    answer = server.http.put("/jobs/ftjob-000001")
    is_problem(answer, 405)
    assert answer.headers["allow"] == "DELETE, GET"
    for path in ("x", "ftjob-1", "ftjob-999999", "ftjob-%00", "ftjob-" + "9" * 40, "%ed%a0%80"):
        answer = server.http.get(httpx.URL(f"{server.url}/jobs/{path}"))
        is_problem(answer, 404)
    is_problem(server.http.get("/jobs/" + "x" * 65), 422)


def test_what_may_run_is_the_servers_choice(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    spec = Spec(source=str(tmp_path), options={"model": str(model), "execute": True})
    check_spec(spec, Allowed([tmp_path], execute=True))
    with pytest.raises(UsageError, match="not open to jobs"):
        check_spec(spec, Allowed([tmp_path]))
    with pytest.raises(NotAllowed, match="not in a folder"):
        check_spec(spec, Allowed([model], execute=True))
    job = Job(id="ftjob-000001", spec=Spec(source=str(tmp_path)))
    _, told = begin_with(tmp_path, Allowed([tmp_path]), None)(job, tmp_path)  # type: ignore[arg-type]
    assert told["FORGE_EXECUTE"] == "false", "whatever the user's own file says"
    strange = "{a: \0"
    assert check_options({"model": strange})["model"] == '"{a: \\u0000"'


def test_jobs_that_are_over_go_after_a_while(server: Serving) -> None:
    ids = [server.start()["id"] for _ in range(3)]
    for job_id in ids[:2]:
        server.http.post(f"/jobs/{job_id}/cancel")
        (server.home / job_id / "run").mkdir(parents=True)
    server.store.remove(ids[1])  # by a server of another machine
    assert ids[0] not in remove_old(server.store, server.home, 1)
    assert (server.home / ids[0]).exists() and not (server.home / ids[1]).exists()
    later = datetime.now(UTC) + timedelta(days=1.5)
    removed = remove_old(server.store, server.home, 1, later)
    assert ids[0] in removed and ids[2] not in removed
    assert not (server.home / ids[0]).exists()
    assert server.http.get(f"/jobs/{ids[2]}").json()["state"] == "queued"
