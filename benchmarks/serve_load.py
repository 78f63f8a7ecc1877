"""Claim: a status call stays under 100 ms at p99 with 1,000 clients, beside a training.

    python benchmarks/serve_load.py [--streams 800 --pollers 200 --every 1.0 --seconds 30]

`forge serve` with its worker trains a tiny model. 800 clients hold a stream of events of that job
and read it; 200 ask for its status, each every second, and are timed. All on this machine, whose
cores the clients share; they are in one process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
OPTIONS = {
    "max_tokens": 4096, "rank": 4, "layers": 0, "distractors": 1, "questions": 2,
    "steps": 100_000, "valid_every": 20, "valid_rows": 4,
}  # fmt: skip


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


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=800)
    parser.add_argument("--pollers", type=int, default=200)
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = prepare(folder)
        log = folder / "log"
        with open(log, "w") as stream:
            server = subprocess.Popen(
                [sys.executable, "-m", "forge_cli", "serve", "--port", "0", "--home",
                 folder / "home", "--allow", folder], stderr=stream, cwd=folder,
            )  # fmt: skip
        try:
            while not (found := re.search(r"serves (http://\S+)", log.read_text())):
                assert server.poll() is None, log.read_text()
                time.sleep(0.05)
            url = found[1]
            body = {"source": str(folder / "repo"), "options": OPTIONS | {"model": str(model)}}
            job = httpx.post(f"{url}/fine-tune", json=body).headers["location"]
            wait_for(url, job)
            first = httpx.get(f"{url}{job}").json()["progress"]["step"]
            load = asyncio.run(clients(args, int(url.rpartition(":")[2]), job))
            after = httpx.get(f"{url}{job}").json()["progress"]["step"]
            ticks = Path(f"/proc/{server.pid}/stat").read_text().rpartition(") ")[2].split()
            cpu = round((int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"), 1)
            memory = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())
        finally:
            server.terminate()
            server.wait()
    times, late = sorted(load.times), sorted(load.late)
    at = lambda share: round(1e3 * times[int(share * (len(times) - 1))], 1)  # noqa: E731
    print(json.dumps({
        "cores": os.cpu_count(), "streams": load.open, "pollers": args.pollers,
        "seconds": args.seconds, "calls": len(times), "failed": load.failed,
        "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": at(1.0),
        "own_lag_max_ms": round(1e3 * late[-1], 1),
        "server_cpu_s": cpu, "messages": load.messages, "megabytes": round(load.bytes / 1e6, 1),
        "training_steps": after - first, "server_rss_mb": int(memory[1]) // 1024 if memory else 0,
        "load_average": os.getloadavg()[0],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
