"""A git URL as a job's source: cloned from a real git host over TLS, or refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from git_host import GitHost, backend, git_host

from forge_cli.serve.jobs import Job, JobStore, Spec
from forge_cli.serve.jobs.clone import CloneFailed, clone, folder_of
from forge_cli.serve.jobs.command import FORGE, begin_with
from forge_cli.serve.jobs.sources import Allowed
from forge_cli.serve.jobs.storage import open_storage
from forge_cli.serve.jobs.worker import Worker

pytestmark = pytest.mark.skipif(backend() is None, reason="no git http-backend, or no openssl")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHost]:
    with git_host(tmp_path_factory.mktemp("host")) as found:
        yield found


@pytest.fixture
def trusted(host: GitHost, monkeypatch: pytest.MonkeyPatch) -> GitHost:
    monkeypatch.setenv("GIT_SSL_CAINFO", str(host.certificate))
    host.asked.clear()
    return host


@contextmanager
def working(folder: Path, *hosts: str) -> Iterator[JobStore]:
    """A worker that clones as every one does, and then only mines."""
    store = JobStore(open_storage(f"sqlite:///{folder}/jobs.db"))
    begin = begin_with(folder, Allowed([], hosts), store)

    def mine(job: Job, where: Path) -> tuple[list[list[str]], Mapping[str, str]]:
        (cloning, _), more = begin(job, where)
        return [cloning, [*FORGE, "mine", cloning[-1], "-o", "chunks.jsonl"]], more

    worker = Worker(store, folder, mine, slots=4, lease=3.0, back_off=0.05)
    thread = threading.Thread(target=worker.run, args=(time.monotonic,))
    thread.start()
    try:
        yield store
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()
        store.storage.close()


def until(store: JobStore, job_id: str, is_so: Callable[[Job], bool] = lambda j: j.is_over) -> Job:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = store.find(job_id)
        if job and is_so(job):
            return job
        time.sleep(0.02)
    raise AssertionError(job)


def test_jobs_clone_and_mine_or_say_why_not(trusted: GitHost, tmp_path: Path) -> None:
    places = [("shop.git", "localhost"), ("shop#old", "localhost"), ("busy", "localhost")]
    with working(tmp_path, "localhost") as store:
        sources = [trusted.url(*place) for place in (*places, ("shop.git", "127.0.0.1"))]
        ids = [store.create(Spec(source=source))[0].id for source in sources]
        jobs = [until(store, job_id) for job_id in ids]
        tries = [event.kind for event in store.events(ids[2])].count("claimed")
        log = "".join(store.blocks("l", ids[0]))
    for job, name in zip(jobs, ("main_price", "old_price"), strict=False):
        assert job.state == "succeeded", job.error
        rows = (tmp_path / job.id / "chunks.jsonl").read_text().splitlines()
        assert name in [json.loads(row).get("symbol") for row in rows]
    assert f"cloning {sources[0]}\n" in log
    *_, busy, other = jobs
    assert (busy.state, other.state, tries) == ("failed", "failed", 3)
    assert busy.error == f"{sources[2]}: The requested URL returned error: 503; tried 3 times"
    assert other.error == "source: 127.0.0.1 is not a host that this server may read"
    assert {by for _, by in trusted.asked} == {"localhost"}


@pytest.mark.parametrize(
    ("name", "said", "transient"),
    [
        ("none.git", "no such repository", False),
        ("shop#none", "no such branch or tag", False),
        ("moved.git", "its server leads elsewhere, which is not followed", False),
        ("login", "its server asks who we are", False),
        ("page", "no repository, or an empty one", False),
        ("rubbish", "git clone: .+", False),
        ("hangs", "its server sends nothing", True),
    ],
)
def test_what_a_host_does_is_one_line(
    trusted: GitHost, tmp_path: Path, name: str, said: str, transient: bool
) -> None:
    target = folder_of(trusted.url(name), tmp_path)
    with pytest.raises(CloneFailed, match=f"^{trusted.url(name)}: {said}") as error:
        clone(trusted.url(name), target, silence=1)
    assert error.value.transient is transient and error.value.hint
    assert "\n" not in error.value.message and not target.exists()
    assert {by for _, by in trusted.asked} == {"localhost"}, "nothing else was asked"


def test_who_is_not_trusted_or_does_not_answer(
    host: GitHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CloneFailed, match="certificate of its server is not trusted"):
        clone(host.url("shop.git"), tmp_path / "a")
    with pytest.raises(CloneFailed, match=r"refused|connect") as error:
        clone("https://localhost:9/shop", tmp_path / "a")
    assert error.value.transient
    monkeypatch.setenv("GIT_SSL_CAINFO", str(host.certificate))
    with pytest.raises(CloneFailed, match="not cloned in 1 s"):
        clone(host.url("hangs/late"), tmp_path / "a", patience=1)


def test_a_clone_that_hangs_is_cancelled(trusted: GitHost, tmp_path: Path) -> None:
    with working(tmp_path, "localhost") as store:
        job_id = store.create(Spec(source=trusted.url("hangs/gone")))[0].id
        until(store, job_id, lambda _: bool(trusted.asked))
        store.add(job_id, "cancel")
        assert until(store, job_id).state == "cancelled"
    found = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True, check=True)
    assert trusted.url("hangs/gone") not in found.stdout
    assert sys.executable in found.stdout, "ps shows what runs"
