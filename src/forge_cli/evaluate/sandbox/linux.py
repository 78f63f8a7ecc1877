"""Contained code on Linux: starts `jail.py`, watches it, and reads what it reports.

What holds where code sets out to break it: the namespaces, the user nobody without capabilities
and the refused system calls are the kernel's; the memory of all processes together is what is
looked at from here. Pages that are shared count once for each process that has them. Code that
hides pages from this count is still bound by memory_bytes for each process. What the kernel keeps
for pipes and sockets is bound by the number of open files alone, 256 for each process. Where a
directory of `read_only` holds the socket of a server, code may talk to it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.evaluate.sandbox.limits import Limits, Outcome
from forge_cli.evaluate.sandbox.paths import check_shown
from forge_cli.evaluate.sandbox.syscalls import program
from forge_cli.evaluate.sandbox.watch import watch

# The directory that the command starts in, as it sees it.
WORK = "/sandbox"

_JAIL = Path(__file__).with_name("jail.py")
_SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime",
)  # fmt: skip
_FILES = {
    "/etc/passwd": f"nobody:x:65534:65534:nobody:{WORK}:/bin/sh\n",
    "/etc/group": "nogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
}
_SETUP_SECONDS = 60.0
_STOP_SECONDS = 20.0
_HINT = "see forge_cli/evaluate/sandbox; nothing was run"
_SIZE = re.compile(rb"^(?:VmRSS|VmSwap):\s+(\d+) kB", re.MULTILINE)


def run(
    command: Sequence[str],
    files: Mapping[str, str],
    read_only: Sequence[Path],
    limits: Limits,
    stdin: str,
) -> Outcome:
    """See `run_contained`.

    Raises:
        ForgeError: the kernel refuses a part of it, or there is no such command.
    """
    order = {
        "command": list(command),
        "files": dict(files),
        "stdin": stdin,
        "limits": asdict(limits),
        "work": WORK,
        "read_only": _visible(read_only),
        "system_files": _FILES,
        "environment": _environment(),
        "filter": _filter().hex(),
    }
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory(prefix="forge-sandbox-") as root, os.fdopen(reader) as status:
        order["root"] = root
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_JAIL), str(writer)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                pass_fds=(writer,), env={}, cwd="/", start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(writer)
        try:
            said = _begin(process, order, reader)
            keeper = said.get("keeper", 0)
            seen = watch(process, limits, partial(memory_of, keeper), partial(_stop, process))
        finally:
            _stop(process)
        for line in status:
            said |= json.loads(line)
    if "error" in said:
        raise ForgeError(f"cannot run contained: {said['error']}", _HINT)
    if "started" not in said:
        reason = seen.stderr.strip().splitlines()[-1:] or ["the launcher ended early"]
        raise ForgeError(f"cannot run contained: {reason[0]}", _HINT)
    why, code = seen.why, said.get("exit")
    if not why and code is None:
        # The second signal comes a second later, to what ignores the first.
        spent = said.get("signal") == signal.SIGKILL and said["cpu"] >= limits.cpu_seconds
        why = "time" if spent or said.get("signal") == signal.SIGXCPU else "killed"
    return Outcome(None if why else code, seen.stdout, seen.stderr, seen.seconds, why)


def _begin(
    process: subprocess.Popen[bytes], order: Mapping[str, Any], reader: int
) -> dict[str, Any]:
    """Give the order; what the launcher has said when the command starts, or cannot."""
    assert process.stdin is not None
    # A launcher that is gone says why by itself.
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
    end = time.monotonic() + _SETUP_SECONDS
    said: dict[str, Any] = {}
    text = b""
    while "started" not in said and "error" not in said:
        if not select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
            raise ForgeError(f"the sandbox was not ready in {_SETUP_SECONDS:.0f} s", _HINT)
        found = os.read(reader, 4096)
        if not found:
            break
        *lines, text = (text + found).split(b"\n")
        for line in lines:
            said |= json.loads(line)
    return said


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The launcher kills process 1 of the namespace when its input closes, then ends itself."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        # Process 1 has asked the kernel to be killed when the launcher ends.
        process.kill()
        process.wait()


def memory_of(keeper: int) -> int:
    """Bytes in memory and swap of all that descends from process 1 of a namespace, without it."""
    total = 0
    waiting = [keeper] if keeper else []
    while waiting:
        pid = waiting.pop()
        # A process may end at any moment.
        with suppress(OSError):
            if pid != keeper:
                status = Path(f"/proc/{pid}/status").read_bytes()
                total += 1024 * sum(map(int, _SIZE.findall(status)))
            for thread in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
    return total


def _visible(read_only: Sequence[Path]) -> list[str]:
    """What is bound into the jail: outermost paths, each as named and as resolved.

    Raises:
        ForgeError: see `check_shown`.
    """
    own = [Path(p) for p in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)]
    found = {Path(name) for name in _SYSTEM if Path(name).exists()}
    for path in (*own, *read_only):
        # Python may be the system's own, and a service's home below it.
        if not any(path.is_relative_to(name) for name in _SYSTEM):
            check_shown(path)
        found |= {path.absolute(), path.resolve()}
    kept: list[Path] = []
    for path in sorted(found):
        if not any(path.is_relative_to(outer) for outer in kept):
            kept.append(path)
    return [str(path) for path in kept]


def _environment() -> dict[str, str]:
    """All that the command finds in its environment."""
    path = f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin"
    return {"PATH": path, "HOME": WORK, "LANG": "C.UTF-8"}


def _filter() -> bytes:
    try:
        return program(platform.machine())
    except KeyError:
        reason = f"system calls of a {platform.machine()} are not known"
        raise ForgeError(f"cannot run contained: {reason}", _HINT) from None


def why_not() -> str:
    """Why this machine cannot contain code; "" if it can. It runs a command to find out."""
    if not Path("/proc/self/task", str(os.getpid()), "children").exists():
        return "the kernel does not list the children of a process (CONFIG_PROC_CHILDREN)"
    try:
        done = run([sys.executable, "-I", "-S", "-c", ""], {}, [], Limits(), "")
    except ForgeError as error:
        return error.message
    return "" if done.exit_code == 0 else f"Python did not run contained: {done.stderr.strip()}"
