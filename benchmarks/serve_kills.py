"""Jobs queued while their workers are killed: every one must end, once.

python benchmarks/serve_kills.py [JOBS KILLS]

200 quick jobs (tests/serve/queue_worker.py: each holds a lock for 50 ms and writes down when it
began and ended) on three workers of three slots, of which one is killed with SIGKILL, at random, 50
times; a lease of two seconds. On SQLite, Redis and Postgres, each started here where its Debian
package is installed.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "serve"))

from _pytest.outcomes import Skipped  # noqa: E402
from queues import queue_urls  # noqa: E402

from forge_cli.serve.jobs import JobStore, Spec  # noqa: E402
from forge_cli.serve.jobs.storage import open_storage  # noqa: E402

WORKER = ROOT / "tests" / "serve" / "queue_worker.py"
WORKERS, LEASE = 3, "2"


def main() -> None:
    """A line for each kind of queue."""
    jobs, kills = map(int, sys.argv[1:] or ("200", "50"))
    print(f"{jobs} jobs, {kills} kills of {WORKERS} workers")
    print(f"{'queue':11}{'ended once':>11}{'began':>7}{'twice at once':>15}{'seconds':>9}")
    for kind in ("sqlite", "redis", "postgresql"):
        with tempfile.TemporaryDirectory() as folder:
            try:
                with queue_urls(kind, Path(folder)) as url:
                    print(f"{kind:11}{measure(url, jobs, kills)}", flush=True)
            except Skipped as why:
                print(f"{kind:11}{why}")


def measure(url: str, jobs: int, kills: int) -> str:
    """Jobs that ended exactly once, how often one began, how often one ran beside itself."""
    store = JobStore(open_storage(url))
    ids = [store.create(Spec(source="/a", priority=n % 3))[0].id for n in range(jobs)]
    rng, begun = random.Random(0), time.monotonic()
    with tempfile.TemporaryDirectory() as home:

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, WORKER, url, home, LEASE])

        workers = [start() for _ in range(WORKERS)]
        killed = 0
        while not all(job and job.is_over for job in store.find_many(ids)):
            time.sleep(0.3)
            if killed < kills:
                place = rng.randrange(WORKERS)
                workers[place].kill()
                workers[place].wait()
                workers[place] = start()
                killed += 1
        took = time.monotonic() - begun
        for worker in workers:
            worker.terminate()
            worker.wait()
        said = Counter((Path(home) / "ledger").read_text().splitlines())
    assert killed == kills, f"the jobs were done after {killed} kills"
    ended = Counter(sum(e.kind == "ended" for e in store.events(job_id)) for job_id in ids)
    began = sum(count for line, count in said.items() if line.startswith("begin"))
    twice = sum(count for line, count in said.items() if line.startswith("twice"))
    return f"{ended[1]:>11}{began:>7}{twice:>15}{took:>9.0f}"


if __name__ == "__main__":
    main()
