"""What code may use, and what came of running it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What contained code may use.

    Attributes:
        seconds: by the clock, from the moment the command starts.
        cpu_seconds: of one process. The clock bounds what all of them use.
        memory_bytes: of all processes together, looked at every 50 ms, and of the addresses of
            each at any time (a library that maps more than it uses needs room for it).
        disk_bytes: of all files that it writes, which are kept in memory.
        processes: at a time; a thread counts as one.
        output_bytes: of standard output, and as many of standard error.
    """

    seconds: float = 10.0
    cpu_seconds: float = 10.0
    memory_bytes: int = 1 << 30
    disk_bytes: int = 64 << 20
    processes: int = 16
    output_bytes: int = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """How contained code ended.

    Attributes:
        exit_code: of the command; None where it did not end by itself.
        stdout, stderr: as UTF-8, what is not replaced; each cut at Limits.output_bytes.
        seconds: by the clock.
        why: it did not end by itself: a limit (time, memory, output), or killed by a signal
            (its own, or of a crash); "" where it did. A process that is refused memory, disk or
            a process ends by itself, mostly with an exception.
    """

    exit_code: int | None
    stdout: str
    stderr: str
    seconds: float
    why: str
