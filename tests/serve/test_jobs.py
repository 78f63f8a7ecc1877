"""Jobs, their store and their workers: every job ends, once, whatever dies."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, ClassVar

import pytest
from queues import queue_urls

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Silent
from forge_cli.serve.jobs import Conflict, Job, JobStore, Spec
from forge_cli.serve.jobs.command import check_options, commands_of, environment_of
from forge_cli.serve.jobs.files import FileStore, StoredFile
from forge_cli.serve.jobs.output import Output, Tail
from forge_cli.serve.jobs.retention import Unfinished
from forge_cli.serve.jobs.rows import Checked
from forge_cli.serve.jobs.sources import Allowed, check_source, prepare
from forge_cli.serve.jobs.storage import open_storage
from forge_cli.serve.jobs.worker import Worker

QUICK = Path(__file__).parent / "queue_worker.py"


@pytest.fixture(scope="module", params=["sqlite", "redis", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with queue_urls(request.param, tmp_path_factory.mktemp("queue")) as found:
        yield found


@pytest.fixture
def store(url: str) -> Iterator[JobStore]:
    storage = open_storage(url)
    storage.flush_all()
    yield JobStore(storage)
    storage.close()


def test_a_job_is_what_its_events_say(store: JobStore) -> None:
    job, new = store.create(Spec(source="/repo", options={"steps": 3}))
    assert (job.id, job.state, new) == ("ftjob-000001", "queued", True)
    job = store.add(job.id, "claimed", worker="w")
    assert (job.state, job.attempt, job.worker) == ("running", 1, "w")
    assert store.add(job.id, "pause").wanted == "pause"
    job = store.add(job.id, "released", attempt=1)
    assert job.state == "paused"
    with pytest.raises(Conflict, match="is paused, which one cannot claim"):
        store.add(job.id, "claimed", worker="w")
    store.add(job.id, "resumed")
    assert store.add(job.id, "claimed", worker="v").attempt == 2
    for late in ("released", "ended"):
        with pytest.raises(Conflict, match="attempt 1 no longer has it"):
            store.add(job.id, late, attempt=1, state="failed")
    job = store.add(job.id, "ended", attempt=2, state="failed", data={"error": "e", "hint": "h"})
    assert job.is_over and (job.error, job.hint) == ("e", "h")
    kinds = [event.kind for event in store.events(job.id)]
    assert kinds == ["created", "claimed", "pause", "released", "resumed", "claimed", "ended"]
    assert [event.number for event in store.events(job.id, after=5)] == [6, 7]
    assert store.add(job.id, "retried").state == "queued"
    assert store.add(job.id, "cancel").state == "cancelled"


def test_a_snapshot_that_lags_is_caught_up_with(store: JobStore) -> None:
    job, _ = store.create(Spec(source="/repo"))
    before = store.storage.peek_many([f"s:{job.id}"]).popitem()[1]
    store.add(job.id, "claimed", worker="w")
    store.storage.put_data(f"s:{job.id}", bytes(before))  # by a reader that was slow
    assert store.find(job.id).state == "running"  # type: ignore[union-attr]
    assert [j.state for j in store.open_jobs()] == ["running"]


def test_an_idempotency_key_makes_one_job(store: JobStore) -> None:
    made: list[tuple[Job, bool]] = []
    threads = [
        threading.Thread(target=lambda: made.append(store.create(Spec(source="/a"), "key")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job.id for job, _ in made}) == 1 and sum(new for _, new in made) == 1
    with pytest.raises(Conflict, match="used for another request"):
        store.create(Spec(source="/b"), "key")
    assert len(store.page(10)) == 1


def test_one_of_many_writers_claims_it(store: JobStore) -> None:
    job, _ = store.create(Spec(source="/a"))
    won: list[str] = []

    def claim(name: str) -> None:
        with suppress(Conflict):
            won.append(store.add(job.id, "claimed", worker=name).worker)

    threads = [threading.Thread(target=claim, args=(f"w{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and store.find(job.id).worker == won[0]  # type: ignore[union-attr]


def test_pages_and_what_is_removed(store: JobStore) -> None:
    ids = [store.create(Spec(source="/a"))[0].id for _ in range(7)]
    assert [job.id for job in store.page(3)] == ids[:3:-1]
    assert [job.id for job in store.page(3, before=ids[4])] == ids[3:0:-1]
    with pytest.raises(Conflict, match="is queued: cancel it before it is removed"):
        store.remove(ids[6])
    store.add(ids[6], "cancel")
    store.append("l", ids[6], "log\n", 0)
    store.remove(ids[6])
    assert store.page(1)[0].id == ids[5] and store.blocks("l", ids[6]) == []
    with pytest.raises(KeyError):
        store.add("ftjob-999999", "cancel")
    assert store.find("nonsense") is None and store.find("ftjob-1") is None
    for job_id in ids[:3]:
        store.add(job_id, "cancel")
    assert [job.id for job in store.open_jobs()] == ids[3:6]


def test_workers_killed_at_random_lose_no_job_and_run_none_twice(
    store: JobStore, url: str, tmp_path: Path
) -> None:
    ids = [store.create(Spec(source="/a", priority=n % 3))[0].id for n in range(16)]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, QUICK, url, tmp_path, "1.5"])

    workers = [start(), start()]
    for number in range(4):
        time.sleep(0.4)
        workers[number % 2].kill()
        workers[number % 2].wait()
        workers[number % 2] = start()
    deadline = time.monotonic() + 60
    while not all(job and job.is_over for job in store.find_many(ids)):
        assert time.monotonic() < deadline, Counter(j.state for j in store.find_many(ids) if j)
        time.sleep(0.1)
    for worker in workers:
        worker.terminate()
    assert [worker.wait(30) for worker in workers] == [0, 0]
    assert {job.state for job in store.find_many(ids) if job} == {"succeeded"}
    for job_id in ids:
        assert [e.kind for e in store.events(job_id)].count("ended") == 1
    said = Counter((tmp_path / "ledger").read_text().splitlines())
    assert {line for line in said if line.startswith("end ")} == {f"end {i}" for i in ids}
    assert not any(line.startswith("twice") for line in said)
    assert all(said[f"end {job_id}"] == 1 for job_id in ids)


# The rest hangs on no backend.


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[JobStore]:
    storage = open_storage(f"sqlite:///{tmp_path}/jobs.db")
    yield JobStore(storage)
    storage.close()


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


@contextmanager
def working(store: JobStore, home: Path, command: list[str], **options: Any) -> Iterator[Worker]:
    def begin(job: Job, folder: Path) -> tuple[list[list[str]], Mapping[str, str]]:
        return [command], {"JOB": job.id}

    worker = Worker(store, home, begin, lease=1.5, back_off=0.05, **options)
    thread = threading.Thread(target=worker.run, args=(time.monotonic,))
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive()


def until(store: JobStore, job_id: str, holds: Callable[[Job], bool]) -> Job:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        job = store.find(job_id)
        if job and holds(job):
            return job
        time.sleep(0.05)
    raise AssertionError(store.find(job_id))


WAITS = """
import signal, sys, time
print('{"note": "begun"}', file=sys.stderr, flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print('{"error": "interrupted", "hint": ""}', file=sys.stderr)
    sys.exit(130)
"""


class Stepwise(io.BytesIO):
    """A file that comes a block at a time, each when it is asked to."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.turns: SimpleQueue[None] = SimpleQueue()
        self.asked: SimpleQueue[None] = SimpleQueue()

    def read(self, size: int | None = -1) -> bytes:
        self.asked.put(None)  # what was read before is kept by now
        self.turns.get(timeout=60)
        return super().read(size)

    def step(self) -> None:
        """Let a block come, and wait until it is kept."""
        self.turns.put(None)
        self.asked.get(timeout=60)


class Upload:
    """One that is under way."""

    def __init__(self, store: JobStore) -> None:
        self.stream = Stepwise(ROWS)
        self.ended: list[StoredFile | ForgeError] = []
        self.thread = threading.Thread(target=self._run, args=(store,), daemon=True)
        self.thread.start()
        self.stream.asked.get(timeout=60)

    def _run(self, store: JobStore) -> None:
        try:
            self.ended.append(add(store, self.stream))
        except ForgeError as error:
            self.ended.append(error)

    def end(self) -> StoredFile | ForgeError:
        for _ in range(9):
            self.stream.turns.put(None)
        self.thread.join(60)
        return self.ended[0]


ROWS = b'{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}\n'
ROWS *= 12_000  # a megabyte, in four blocks


def add(store: JobStore, stream: IO[bytes]) -> StoredFile:
    checked = Checked(bytes=len(ROWS), rows=12_000, different=1, kind="chat")
    return FileStore(store).add(stream, checked, filename="a", purpose="fine-tune", created=0)


def killed_halfway(url: str) -> None:
    """An upload whose process is killed when it has written two blocks."""
    code = "import sys, test_jobs; test_jobs.upload_half(sys.argv[1])"
    path = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(
        [sys.executable, "-c", code, url],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout and process.stdout.readline() == b"half\n"
    process.kill()
    process.wait()


def upload_half(url: str) -> None:
    upload = Upload(JobStore(open_storage(url)))
    upload.stream.step()
    upload.stream.step()
    print("half", flush=True)
    upload.thread.join()


def test_what_a_broken_upload_left_is_removed(store: JobStore, url: str) -> None:
    files, looker = FileStore(store), Unfinished(store, patience=10.0)
    killed_halfway(url)
    [(_, broken)] = files.begun().items()
    assert files.blocks(broken) == 2 and files.all() == [] and files.find(broken) is None
    slow, stuck = Upload(store), Upload(store)
    slow.stream.step()
    assert looker.remove(at=0.0) == []
    slow.stream.step()
    assert looker.remove(at=9.0) == [], "no clock but the looker's counts"
    gone = looker.remove(at=12.0)
    assert broken in gone and len(gone) == 2 and files.blocks(broken) == 0
    found = slow.end()
    assert isinstance(found, StoredFile), "it had grown"
    assert "".join(files.content(found)).encode() == ROWS and files.all() == [found]
    late = stuck.end()
    assert isinstance(late, ForgeError) and "stood still" in late.message
    assert files.begun() == {} and [files.blocks(name) for name in gone] == [0, 0]
    assert looker.remove(at=99.0) == [] and files.all() == [found], "what is whole stays"


def test_a_removal_that_is_killed_is_ended_by_a_worker(alone: JobStore, tmp_path: Path) -> None:
    files = FileStore(alone)
    found, kept = add(alone, io.BytesIO(ROWS)), add(alone, io.BytesIO(ROWS))
    alone.storage.pop_data(f"F:{found.id}")  # as far as it came
    alone.storage.pop_data(f"f:{found.id}:{found.blocks - 1}")
    with working(alone, tmp_path, python(""), patience=0.2):
        deadline = time.monotonic() + 20
        while files.begun():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert files.blocks(found.id) == 0 and files.all() == [kept]


def test_paused_resumed_and_cancelled(alone: JobStore, tmp_path: Path) -> None:
    job, _ = alone.create(Spec(source="/a"))
    with working(alone, tmp_path, python(WAITS)):
        for wanted, state in (("pause", "paused"), ("cancel", "cancelled")):
            until(alone, job.id, lambda j: j.state == "running")
            until(alone, job.id, lambda j: "begun" in "".join(alone.blocks("l", j.id)))
            alone.add(job.id, wanted)  # type: ignore[arg-type]
            until(alone, job.id, lambda j, state=state: j.state == state)  # type: ignore[misc]
            if state == "paused":
                alone.add(job.id, "resumed")
    assert "error: interrupted" in "".join(alone.blocks("l", job.id))


def test_a_worker_that_stops_gives_its_job_back(alone: JobStore, tmp_path: Path) -> None:
    job, _ = alone.create(Spec(source="/a"))
    with working(alone, tmp_path, python(WAITS)):
        until(alone, job.id, lambda j: j.state == "running")
    after = alone.find(job.id)
    assert after and (after.state, after.lost) == ("queued", 0)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().split()[2] != "Z"


def gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline, "it runs on"
        time.sleep(0.05)


def test_a_queue_that_goes_away_leaves_nothing_running(alone: JobStore, tmp_path: Path) -> None:
    job, _ = alone.create(Spec(source="/a"))
    with working(alone, tmp_path, python(WAITS)) as worker:
        until(alone, job.id, lambda j: j.state == "running")
        group = tmp_path / job.id / "process-group"
        until(alone, job.id, lambda _: group.exists() and bool(group.read_text()))
        pid = int(group.read_text())

        def fail(*_: object) -> None:
            raise OSError("no queue")

        kept, alone.put = alone.put, fail  # type: ignore[method-assign]
        gone(pid)
        alone.put = kept  # type: ignore[method-assign]
        # It is lost, and begun anew.
        until(alone, job.id, lambda j: j.attempt == 2)
        worker.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="finds the parent in /proc")
def test_a_child_that_is_killed_leaves_nothing_running(alone: JobStore, tmp_path: Path) -> None:
    job, _ = alone.create(Spec(source="/a"))
    with working(alone, tmp_path, python(WAITS)):
        group = tmp_path / job.id / "process-group"
        until(alone, job.id, lambda _: group.exists() and bool(group.read_text()))
        pid = int(group.read_text())
        parent = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
        os.kill(parent, signal.SIGKILL)
        gone(pid)
        until(alone, job.id, lambda j: j.attempt == 2)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no autogroups here")
def test_a_training_leaves_the_processor_to_the_server(alone: JobStore, tmp_path: Path) -> None:
    job, _ = alone.create(Spec(source="/a"))
    with working(alone, tmp_path, python(WAITS)):
        group = tmp_path / job.id / "process-group"
        until(alone, job.id, lambda _: group.exists() and bool(group.read_text()))
        pid = group.read_text()
        until(
            alone, job.id,
            lambda _: Path(f"/proc/{pid}/autogroup").read_text().endswith("nice 10\n"),
        )  # fmt: skip
        assert Path(f"/proc/{pid}/stat").read_text().split()[18] == "10"


FAILS = 'import sys; print(\'{"error": "no %s", "hint": "h", "transient": %s}\', file=sys.stderr); '


@pytest.mark.parametrize(
    ("command", "attempts", "error"),
    [
        (FAILS % ("luck", "false") + "sys.exit(2)", 1, "no luck"),
        (FAILS % ("answer", "true") + "sys.exit(1)", 3, "no answer; tried 3 times"),
        ("import os; os.kill(os.getpid(), 9)", 3, "its process ended with 137; tried 3 times"),
    ],
)
def test_only_faults_that_can_pass_are_tried_again(
    alone: JobStore, tmp_path: Path, command: str, attempts: int, error: str
) -> None:
    class Notes(Silent):
        told: ClassVar[list[str]]

        def note(self, message: str) -> None:
            self.told.append(message)

    job, _ = alone.create(Spec(source="/a"))
    Notes.told = []
    with working(alone, tmp_path, python(command), reporter=Notes()):
        job = until(alone, job.id, lambda j: j.is_over)
    assert (job.state, job.attempt, job.error) == ("failed", attempts, error)
    assert Notes.told[-1] == f"{job.id}: failed: {error}"
    assert sum("given back: " in note for note in Notes.told) == attempts - 1


def test_the_log_the_metrics_and_the_result(alone: JobStore, tmp_path: Path) -> None:
    row = {"step": 1, "loss": 0.5, "learning_rate": 0.1, "seconds": 1}
    code = f"""
import pathlib, sys
run = pathlib.Path("run"); run.mkdir()
(run / "metrics.jsonl").write_text({json.dumps(row)!r} + chr(10))
print('{{"progress": "train: 3/40 loss 0.5"}}', file=sys.stderr)
print('{{"note": "a line"}}', file=sys.stderr)
print("not JSON", file=sys.stderr)
print('{{"record": "run", "path": "run", "metrics": {{}}}}')
print('{{"record": "end", "count": 1}}')
"""
    job, _ = alone.create(Spec(source="/a"))
    with working(alone, tmp_path, python(code)):
        job = until(alone, job.id, lambda j: j.is_over)
    assert job.state == "succeeded" and job.result["path"] == "run"
    assert "".join(alone.blocks("l", job.id)) == "a line\nnot JSON\n"
    assert json.loads(alone.blocks("m", job.id)[0]) == row
    progress = alone.get([f"p:{job.id}"])[f"p:{job.id}"]
    assert (progress["stage"], progress["done"], progress["total"]) == ("train", 3, 40)
    assert (progress["step"], progress["loss"]) == (1, 0.5)


def test_the_higher_priority_goes_first(alone: JobStore, tmp_path: Path) -> None:
    ids = [alone.create(Spec(source="/a", priority=p))[0].id for p in (0, 5, -5, 5)]
    with working(alone, tmp_path, python(""), slots=1):
        jobs = [until(alone, job_id, lambda j: j.is_over) for job_id in ids]
    order = sorted(jobs, key=lambda job: job.started)
    assert [job.id for job in order] == [ids[1], ids[3], ids[0], ids[2]]


def test_a_job_may_read_what_is_allowed_alone(alone: JobStore, tmp_path: Path) -> None:
    inside, outside = tmp_path / "in" / "repo", tmp_path / "out"
    inside.mkdir(parents=True)
    outside.mkdir()
    (tmp_path / "in" / "link").symlink_to(outside)
    allowed = Allowed([tmp_path / "in"], ["github.com"])
    check_source(str(inside), allowed)
    check_source("https://github.com/me/repo", allowed)
    check_source("ssh://git@github.com/me/repo", allowed)
    for source in (
        str(outside), f"{inside}/../../out", str(tmp_path / "in" / "link"), "in/repo", "/",
        f"{inside}\0", str(tmp_path / "in" / "none"), "https://evil.example/r", "file:///etc",
        "https://me:secret@github.com/r", "http://github.com/r", "ext::sh -c id", "-u/repo",
        "git@github.com:me/repo", "--upload-pack=id",
    ):  # fmt: skip
        with pytest.raises(UsageError):
            check_source(source, allowed)
    with pytest.raises(ForgeError, match="no such file"):
        prepare("file-" + "0" * 24, tmp_path / "job", allowed, alone)


def test_options_are_settings_and_become_variables(tmp_path: Path) -> None:
    spec = Spec(source="/a", options={"steps": 3, "model": "smollm2-135m", "lang": ["python"],
                                      "budget": "45m"}, export=True)  # fmt: skip
    job = Job(id="ftjob-000001", spec=spec)
    assert environment_of(job) == {
        "FORGE_STEPS": "3", "FORGE_MODEL": "smollm2-135m", "FORGE_LANG": '["python"]',
        "FORGE_BUDGET": "45m",
    }  # fmt: skip
    train, export = commands_of(job, "/a", tmp_path)
    assert train[3:] == ["train", "/a", "--run", f"{tmp_path}/run", "--json"]
    assert export[3:] == ["export", f"{tmp_path}/run", "--json"]
    for options, said in (
        ({"stepz": 3}, "unknown setting"), ({"steps": -1}, "steps"),
        ({"test_command": "rm -rf /"}, "not open to jobs"), ({"execute": True}, "not open"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            check_options(options)


def test_a_storage_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="not a queue that Forge knows"):
        open_storage("mysql://x/y")
    with pytest.raises(ForgeError, match=r"the queue at redis://127.0.0.1:9/0"):
        open_storage("redis://:secret@127.0.0.1:9/0")


def test_output_keeps_whole_lines() -> None:
    output = Output()
    output.take_stderr('{"note": "one"}\n')
    output.take_stderr("two")
    assert output.new_text() == "one\n" and output.new_text() == ""
    assert output.new_text(all_of_it=True) == "two"


def test_output_knows_the_progress_of_every_stage() -> None:
    output = Output()
    output.take_stderr('{"progress": "base: answers: 3/10"}\n')
    told = {"stage": "base: answers", "done": 3, "total": 10, "detail": ""}
    assert output.progress() == told
    output.take_stderr('{"progress": "training: 4/9 loss 2.1 · 0:48 min left"}\n')
    assert output.progress()["detail"] == "loss 2.1 · 0:48 min left"


def test_a_validation_that_comes_into_a_row_is_told(tmp_path: Path) -> None:
    from forge_cli.models.backend import nn
    from forge_cli.train.callbacks.metrics import Metrics
    from forge_cli.train.callbacks.protocol import Run, Validation
    from forge_cli.train.step import Step

    run = Run(nn.Module(), tmp_path, 2, 1, SILENT)
    metrics, tail = Metrics(), Tail(tmp_path / "metrics.jsonl")
    told: list[list[tuple[int, float | None]]] = []

    def look() -> None:
        rows = [json.loads(line) for line in tail.new_lines()]
        told.append([(row["step"], row.get("valid_loss")) for row in rows])

    for step in (1, 2, 3):
        metrics.on_step(run, Step(step, 1.5, 0.1, 1.0, 9, 3, 0.1, 7, 7, 9, 1))
        if step < 3:
            look()
        if step == 2:
            metrics.on_validation(run, Validation(2, 0.5, True, 0.1, 7, [(2, 0.5)]))
    look()
    look()
    assert told == [[(1, None)], [(2, None)], [(2, 0.5), (3, None)], []]
