"""Uploads are checked beside the event loop: short ones in a thread, others in a process each.

A thread that checks rows holds the GIL most of the time, and every request waits for it; so would
a line that takes seconds or a gigabyte.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from contextlib import suppress
from tempfile import SpooledTemporaryFile

from fastapi.concurrency import run_in_threadpool

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.serve.jobs.rows import Checked, check_rows

SMALL = 64 << 10  # bytes that are checked sooner than a process begins
AT_ONCE = 2  # processes; others wait for them
LONGEST = 120.0  # seconds that one may take
_CHECKER = "forge_cli.serve.jobs.checker"
_AGAIN = "nothing of it is kept; send it again"
_log = logging.getLogger("forge.serve")


class RowChecks:
    """Those of one server."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AT_ONCE)

    async def check(
        self, stream: SpooledTemporaryFile[bytes], size: int, most_rows: int
    ) -> Checked:
        """What reading the file shows; it stands at its beginning afterwards.

        Args:
            size: its bytes.

        Raises:
            UsageError: as `check_rows`. ForgeError: its process could not do it.
        """
        await run_in_threadpool(stream.seek, 0)
        if size <= SMALL:
            found = await run_in_threadpool(check_rows, stream, most_rows)
            stream.seek(0)
            return found
        descriptor = await run_in_threadpool(_descriptor, stream)
        async with self._places:
            return await _in_process(descriptor, most_rows)


def _descriptor(stream: SpooledTemporaryFile[bytes]) -> int:
    stream.rollover()
    stream.flush()
    return stream.fileno()


async def _in_process(descriptor: int, most_rows: int) -> Checked:
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _CHECKER, str(descriptor), str(most_rows),
            stdin=asyncio.subprocess.PIPE,  # its end is how the process knows that this one is gone
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=[descriptor],
            env={k: v for k, v in os.environ.items() if k not in ("FORGE_TOKEN", "FORGE_QUEUE")},
            start_new_session=True,  # Ctrl-C is the server's, which answers first
        )  # fmt: skip
    except OSError as error:
        raise _failed(f"no process for it: {error.strerror}") from None
    assert process.stdin and process.stdout
    try:
        async with asyncio.timeout(LONGEST):
            said = await process.stdout.read()
            code = await process.wait()
    except TimeoutError:
        raise _failed(f"it took more than {LONGEST:.0f} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        process.stdin.close()
    if code:
        raise _failed(f"the process that reads it ended with {code}")
    told = json.loads(said)
    if "wrong" in told:
        raise UsageError(*told["wrong"])
    if "failed" in told:
        raise _failed(f"{told['failed']} in the process that reads it")
    return Checked(**told["checked"])


def _failed(why: str) -> ForgeError:
    _log.warning("an upload could not be checked: %s", why)
    return ForgeError(f"the file could not be checked: {why}", _AGAIN)
