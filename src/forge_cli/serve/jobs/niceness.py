"""Work beside the server leaves the processor to it."""

from __future__ import annotations

import os
import time
from pathlib import Path

NICE = 10  # the machine still answers while it trains


def be_nice() -> None:
    """Lower this process, and its session if it leads one."""
    os.nice(NICE)
    if os.getsid(0) == os.getpid():
        lower_session(os.getpid())


def lower_session(leader: int) -> None:
    """Where Linux shares the processor among sessions, as sched(7) tells of autogroups.

    There a process's own nice value counts among those of its session alone, so that a training in
    a session of its own would get as much as the whole server.
    """
    for _ in range(3):
        try:
            Path(f"/proc/{leader}/autogroup").write_text(str(NICE), encoding="ascii")
        except BlockingIOError:  # the kernel takes ten a second from those who are not root
            time.sleep(0.11)
        except OSError:  # another system, or a kernel without it
            return
        else:
            return
