"""Claim: a status call stays under 100 ms at p99 with 1,000 clients, beside a training.

    python benchmarks/serve_load.py [--queue sqlite redis postgresql] [--upload-mb 0 64]
        [--streams 800 --pollers 200 --every 1.0 --seconds 30]

`forge serve` with its worker trains a tiny model. 800 clients hold a stream of events of that job
and read it; 200 ask for its status, each every second, and are timed. All on this machine, whose
cores the clients share; they are in one process of their own. With uploads one more process sends a
file of chats of so many megabytes, deletes it and begins again. Each kind of queue is started here,
where its Debian package is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "serve")]
OPTIONS = {
    "max_tokens": 4096, "rank": 4, "layers": 0, "distractors": 1, "questions": 2,
    "steps": 100_000, "valid_every": 20, "valid_rows": 4,
}  # fmt: skip
UPLOADING = "--upload-to"  # how this script calls itself to upload


class Load:
    """What the clients saw."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.late: list[float] = []
        self.messages = self.bytes = self.failed = self.open = 0
        self.kinds: dict[str, int] = {}


async def follow(port: int, path: str, load: Load, until: float) -> None:
    """A client of a stream."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET {path}/events HTTP/1.1\r\nHost: localhost\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        if b" 200 " not in await reader.readline():
            raise ConnectionError
        load.open += 1
        while (left := until - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    data = await reader.read(1 << 16)
            except TimeoutError:
                break
            if not data:
                raise ConnectionError
            load.bytes += len(data)
            load.messages += data.count(b"\nevent: ")
        writer.close()
    except OSError:
        load.failed += 1


async def poll(port: int, path: str, load: Load, first: float, every: float, until: float) -> None:
    """A client that asks for the status, on a connection that it keeps."""
    await asyncio.sleep(first)
    reader = writer = None
    while time.monotonic() < until:
        began = time.perf_counter()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head)[1])
            await reader.readexactly(length)
            if b" 200 " not in head[:20]:
                raise ConnectionError
            load.times.append(time.perf_counter() - began)
        except (OSError, EOFError):
            load.failed += 1
            writer = None
        await asyncio.sleep(max(0.0, every - (time.perf_counter() - began)))


async def watch(load: Load) -> None:
    """How late the clients' own process is, which is in what they measure."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.01)
        load.late.append(time.perf_counter() - began - 0.01)


async def clients(args: argparse.Namespace, port: int, path: str) -> Load:
    """All of them at once."""
    load = Load()
    gc.disable()  # a pause of the clients is none of the server
    lag = asyncio.create_task(watch(load))
    settle = 5.0
    ends = time.monotonic() + settle + args.seconds
    until = ends + settle  # streams close when the last call was answered
    tasks = []
    for number in range(args.streams):
        tasks.append(asyncio.create_task(follow(port, path, load, until)))
        if number % 20 == 19:
            await asyncio.sleep(0.02)
    await asyncio.sleep(settle)
    tasks += [
        asyncio.create_task(poll(port, path, load, args.every * n / args.pollers, args.every, ends))
        for n in range(args.pollers)
    ]
    await asyncio.gather(*tasks)
    lag.cancel()
    gc.enable()
    return load


def prepare(folder: Path) -> Path:
    """A repository and a tiny model."""
    from tiny_train import save_model

    (folder / "repo").mkdir()
    for n in range(24):
        (folder / "repo" / f"m{n:02}.py").write_text(
            "\n\n".join(
                f"def job_{n}_{i}(a, b={i}):\n"
                f'    """Does job {n} {i} of it, as told, and hands on what came of it."""\n'
                f"    found = a * {n} + b\n    return found\n"
                for i in range(3)
            )
        )
    return save_model(folder / "model", max_position_embeddings=8192)


def wait_for(url: str, job: str) -> None:
    """Until the training is under way."""
    for _ in range(600):
        found = httpx.get(f"{url}{job}").json()
        if (found["progress"]["step"] or 0) >= 3:
            return
        assert found["state"] in ("queued", "running"), found
        time.sleep(0.2)
    raise SystemExit("the training does not begin")


def upload(url: str, megabytes: float) -> None:
    """Send a file of chats over and over, and print the seconds that each took."""
    os.nice(10)  # as if it were another machine
    turns = [{"role": role, "content": "x" * 280} for role in ("user", "assistant")]
    line = json.dumps({"messages": turns}).encode() + b"\n"
    head = '--b\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    body = (
        head.format("purpose", "").encode() + b"fine-tune\r\n"
        + head.format("file", '; filename="a.jsonl"').encode()
        + line * int(megabytes * 1e6 / len(line)) + b"\r\n--b--\r\n"
    )  # fmt: skip
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    while True:
        began = time.monotonic()
        answer = httpx.post(f"{url}/v1/files", content=body, headers=form, timeout=300)
        assert answer.status_code == 200, answer.text
        print(f"{time.monotonic() - began:.2f}", flush=True)
        httpx.delete(f"{url}/v1/files/{answer.json()['id']}", timeout=60)


@contextmanager
def uploading(url: str, megabytes: float, log: Path) -> Iterator[None]:
    """A process that uploads meanwhile, where there is something to upload."""
    if not megabytes:
        log.write_text("")
        yield
        return
    command = [sys.executable, __file__, UPLOADING, url, "--upload-mb", str(megabytes)]
    with open(log, "w") as stream:
        process = subprocess.Popen(command, stdout=stream)
        try:
            yield
            assert process.poll() is None, "the uploads failed"
        finally:
            process.kill()
            process.wait()


@contextmanager
def served(folder: Path, queue: str) -> Iterator[tuple[str, int]]:
    """The URL of a `forge serve` and its process."""
    log = folder / "log"
    with open(log, "w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "forge_cli", "serve", "--port", "0", "--home", folder / "home",
             "--allow", folder], stderr=stream, cwd=folder,
            env=os.environ | {"FORGE_QUEUE": queue},
        )  # fmt: skip
    try:
        while not (found := re.search(r"serves (http://\S+)", log.read_text())):
            assert server.poll() is None, log.read_text()
            time.sleep(0.05)
        yield found[1], server.pid
    finally:
        server.terminate()
        server.wait()


def measure(args: argparse.Namespace, queue: str, megabytes: float, folder: Path) -> str:
    """A line of the table."""
    (folder / "home").mkdir()
    model = prepare(folder)
    with served(folder, queue) as (url, pid):
        body = {"source": str(folder / "repo"), "options": OPTIONS | {"model": str(model)}}
        job = httpx.post(f"{url}/fine-tune", json=body).headers["location"]
        wait_for(url, job)
        first = httpx.get(f"{url}{job}").json()["progress"]["step"]
        with uploading(url, megabytes, folder / "uploads"):
            load = asyncio.run(clients(args, int(url.rpartition(":")[2]), job))
        after = httpx.get(f"{url}{job}").json()["progress"]["step"]
        status = Path(f"/proc/{pid}/status").read_text()
        memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024
    times = sorted(load.times)
    at = lambda share: 1e3 * times[int(share * (len(times) - 1))]  # noqa: E731
    took = sorted(map(float, (folder / "uploads").read_text().split()))
    sent = f"{len(took)}, {took[len(took) // 2]:.1f} s" if took else "-"
    return (
        f"{megabytes:>4.0f}{sent:>13}{load.open:>9}{len(times):>8}{load.failed:>8}"
        f"{at(0.5):>8.1f}{at(0.9):>8.1f}{at(0.99):>8.1f}{at(1.0):>8.0f}"
        f"{1e3 * max(load.late):>8.0f}{after - first:>8}{memory:>8}{os.getloadavg()[0]:>7.1f}"
    )


def main() -> None:
    """A line for each kind of queue, without and with uploads."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = ("sqlite", "redis", "postgresql")
    parser.add_argument("--queue", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--upload-mb", nargs="+", type=float, default=[0, 64])
    parser.add_argument("--streams", type=int, default=800)
    parser.add_argument("--pollers", type=int, default=200)
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument(UPLOADING, default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.upload_to:
        upload(args.upload_to, args.upload_mb[0])
    from _pytest.outcomes import Skipped
    from queues import queue_urls

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    load = f"load before {os.getloadavg()[0]:.1f}, nice {os.nice(0)}"
    print(
        f"{os.cpu_count()} cores, {args.pollers} calls each {args.every:g} s, {load}; late: of the"
    )
    print("clients' own loop, at most")
    print(f"{'queue':11}{'MB':>4}{'uploads':>13}{'streams':>9}{'calls':>8}{'failed':>8}"
          f"{'p50 ms':>8}{'p90':>8}{'p99':>8}{'max':>8}{'late':>8}{'steps':>8}{'RSS MB':>8}"
          f"{'load':>7}", flush=True)  # fmt: skip
    for kind in args.queue:
        for megabytes in args.upload_mb:
            with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as data:
                try:
                    with queue_urls(kind, Path(data)) as url:
                        line = measure(args, url, megabytes, Path(place))
                except Skipped as why:
                    line = f" {why}"
                print(f"{kind:11}{line}", flush=True)


if __name__ == "__main__":
    main()
