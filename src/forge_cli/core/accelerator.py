"""One at a time on this machine's accelerator, where somebody arranged for turns.

Whoever starts several Forges (a worker with two jobs) names a file in FORGE_ACCELERATOR; what
trains or answers then waits for its lock, while mining and checking go on beside it. Without the
variable nothing waits.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from forge_cli.core.events import Reporter

VARIABLE = "FORGE_ACCELERATOR"


@contextmanager
def accelerator(reporter: Reporter) -> Iterator[None]:
    """Hold the accelerator; the system gives it back however the process ends."""
    path = os.environ.get(VARIABLE)
    if not path:
        yield
        return
    with open(path, "a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reporter.note("waits for another job to leave the accelerator")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
