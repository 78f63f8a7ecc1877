"""`forge serve`, its worker and `forge jobs` as processes: a whole job, and what stops it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tiny_train import save_model

FORGE = [sys.executable, "-m", "forge_cli"]
OPTIONS = {
    "max_tokens": 4096, "rank": 4, "layers": 0, "distractors": 1, "questions": 2, "steps": 4,
    "valid_every": 2, "valid_rows": 4, "eval_rows": 8, "answer_rows": 2, "sides": ["base", "tuned"],
}  # fmt: skip


class Service:
    """Attributes: token: shown once, when the server made it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        for n in range(12):
            (folder / "repo").mkdir(exist_ok=True)
            (folder / "repo" / f"m{n:02}.py").write_text(
                "\n\n".join(
                    f"def job_{n}_{i}(a, b={i}):\n"
                    f'    """Does job {n} {i} of it, as told, and hands on what came of it."""\n'
                    f"    found = a * {n} + b\n    return found\n"
                    for i in range(3)
                )
            )
        self.model = save_model(folder / "model", max_position_embeddings=8192)
        self.log = folder / "serve.log"
        with open(self.log, "w") as stream:
            self.process = subprocess.Popen(
                [*FORGE, "serve", "--port", "0", "--home", self.home, "--allow", folder,
                 "--token-file", folder / "token", "--slots", "2"],
                cwd=folder, stderr=stream, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        self.url = self._said(r"serves (http://\S+)")
        self.token = self._said(r"shown only now: (\S+)")
        headers = {"Authorization": f"Bearer {self.token}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False)

    def _said(self, pattern: str) -> str:
        deadline = time.monotonic() + 30
        while not (found := re.search(pattern, self.log.read_text())):
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        return found[1]

    def start(self, **options: object) -> str:
        body = {
            "source": str(self.folder / "repo"),
            "options": OPTIONS | {"model": str(self.model)} | options,
        }
        for _ in range(100):
            try:
                answer = self.http.post("/fine-tune", json=body)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def until(self, job_id: str, holds: str, seconds: float = 90) -> dict[str, object]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job = dict(self.http.get(f"/jobs/{job_id}").json())
            if job["state"] == holds or (holds == "step" and job["progress"]["step"]):
                return job
            time.sleep(0.1)
        raise AssertionError((job, self.http.get(f"/jobs/{job_id}/logs").text))

    def jobs(self, *args: str, code: int = 0) -> str:
        told = {"FORGE_URL": self.url, "FORGE_TOKEN": self.token}
        done = subprocess.run(
            [*FORGE, "jobs", *args], env=os.environ | told, capture_output=True, text=True,
            cwd=self.folder, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    found = Service(tmp_path_factory.mktemp("service"))
    try:
        yield found
    finally:
        found.process.kill()
        found.process.wait()


def test_a_whole_job_and_the_commands(service: Service) -> None:
    job_id = service.start()
    log = service.jobs("logs", job_id, "--follow")
    assert "verdict: " in log, log
    job = json.loads(service.jobs("show", job_id))
    assert job["state"] == "succeeded" and job["result"]["record"] == "run"
    assert "answer_loss" in json.dumps(job["result"]["metrics"])
    rows = service.http.get(f"/jobs/{job_id}/metrics").json()["rows"]
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]  # 0: before training
    files = service.http.get(f"/jobs/{job_id}/artifacts").json()["artifacts"]
    assert {"run.json", "metrics.jsonl", "eval/report.html"} <= {f["path"] for f in files}
    assert "<html" in service.http.get(f"/jobs/{job_id}/report").text
    assert service.jobs("ls").startswith(f"{job_id}\tsucceeded\t")
    assert json.loads(service.jobs("ls", "--json", "--state", "succeeded"))["id"] == job_id
    assert "is succeeded" in service.jobs("cancel", job_id, code=1)
    service.jobs("rm", job_id)
    assert "No such job" in service.jobs("show", job_id, code=1)
    assert not (service.home / job_id).exists()


def test_paused_gone_on_cancelled_and_the_server_stopped(service: Service) -> None:
    job_id = service.start(steps=4000, valid_every=4000)
    service.until(job_id, "step")
    service.jobs("pause", job_id)
    paused = service.until(job_id, "paused")
    assert paused["attempt"] == 1
    steps = len(service.http.get(f"/jobs/{job_id}/metrics").json()["rows"])
    service.jobs("resume", job_id)
    deadline = time.monotonic() + 60
    while len(rows := service.http.get(f"/jobs/{job_id}/metrics").json()["rows"]) <= steps:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert [row["step"] for row in rows[: steps + 1]] == list(range(steps + 1)), "it went on"
    service.jobs("cancel", job_id)
    service.until(job_id, "cancelled")

    job_id = service.start(steps=4000, valid_every=4000)
    service.until(job_id, "running")
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0, service.log.read_text()
    log = service.log.read_text()
    assert log.count(service.token) == 1, "shown when it was made, and never again"
    assert '"path": "/fine-tune", "status": 202' in log
    with pytest.raises(httpx.TransportError):
        service.http.get("/healthz")
    left = subprocess.run(
        ["ps", "-wweo", "args"], capture_output=True, text=True, check=True
    ).stdout
    assert str(service.home) not in left, "neither the worker nor the job outlives it"
