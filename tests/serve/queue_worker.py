"""A worker whose jobs are quick: python queue_worker.py QUEUE_URL HOME LEASE

Each job holds a lock for a moment and says in HOME/ledger when it began and ended; a second one of
the same job at the same time would find the lock taken.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from forge_cli.serve.jobs.job import Job
from forge_cli.serve.jobs.storage import open_storage
from forge_cli.serve.jobs.store import JobStore
from forge_cli.serve.jobs.worker import Worker

WORK = """
import fcntl, os, sys, time
job, ledger = sys.argv[1:]
def say(what):
    with open(ledger, "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write(f"{what} {job}\\n")
lock = open(f"{ledger}.{job}", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    say("twice")
    sys.exit(1)
# As the pipeline does, which finds in its run directory what is done.
open(ledger, "a").close()
if f"end {job}\\n" not in open(ledger).read():
    say("begin")
    time.sleep(0.05)
    say("end")
print('{"record": "run", "path": "' + job + '"}')
"""


def main() -> None:
    url, home, lease = sys.argv[1:]

    def begin(job: Job, folder: Path) -> tuple[list[list[str]], Mapping[str, str]]:
        return [[sys.executable, "-S", "-c", WORK, job.id, str(Path(home) / "ledger")]], {}

    store = JobStore(open_storage(url))
    worker = Worker(store, Path(home), begin, slots=3, lease=float(lease), back_off=0.1)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run(time.monotonic)


if __name__ == "__main__":
    main()
