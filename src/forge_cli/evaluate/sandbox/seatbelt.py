"""Contained code on macOS: `sandbox-exec` with a profile, and the shell's limits.

Not run so far: this was written on Linux, where only the text of profile and command is tested.
It is weaker than `linux.py`: other processes are visible, a child that makes a session of its
own outlives the command, and disk_bytes bounds each file, not all of them.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from forge_cli.core.errors import ForgeError
from forge_cli.evaluate.sandbox.limits import Limits, Outcome
from forge_cli.evaluate.sandbox.watch import watch

_PROGRAM = Path("/usr/bin/sandbox-exec")
_HIDDEN = ("/Users", "/Volumes", "/private/tmp", "/private/var/folders")


def profile(work: Path, read_only: Sequence[Path], home: Path) -> str:
    """The rules, in the language of sandbox-exec: of those that match, the last one holds.

    Args:
        work: where the code may write. read_only: what it may read below `home`.
    """
    hidden = (home, *map(Path, _HIDDEN))
    lines = [
        "(version 1)",
        "(allow default)",
        "(deny network*)",
        "(deny signal (target others))",
        # Through a service it could have another process do what it may not.
        "(deny appleevent-send)",
        "(deny mach-lookup)",
        '(allow mach-lookup (global-name "com.apple.system.opendirectoryd.libinfo"))',
        *(f"(deny file-read* (subpath {_quoted(path)}))" for path in hidden),
        *(f"(allow file-read* (subpath {_quoted(path)}))" for path in (*read_only, work)),
        # Python asks for each directory on the way to a file.
        "(allow file-read-metadata)",
        "(deny file-write*)",
        f"(allow file-write* (subpath {_quoted(work)}))",
        '(allow file-write-data (literal "/dev/null") (literal "/dev/zero"))',
    ]
    return "\n".join(lines)


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def with_limits(command: Sequence[str], rules: str, limits: Limits, taken: int) -> list[str]:
    """The command under a shell that sets limits, then gives way to sandbox-exec.

    Args:
        taken: processes that the user has now; the system counts them together.
    """
    cpu, blocks = math.ceil(limits.cpu_seconds), max(1, limits.disk_bytes // 512)
    set_limits = (
        f"ulimit -c 0 && ulimit -t {cpu} && ulimit -f {blocks} && ulimit -n 256 "
        f"&& ulimit -u {taken + limits.processes}"
    )
    run = shlex.join([str(_PROGRAM), "-p", rules, *command])
    return ["/bin/sh", "-c", f"{set_limits} && exec {run}"]


def run(
    command: Sequence[str],
    files: Mapping[str, str],
    read_only: Sequence[Path],
    limits: Limits,
    stdin: str,
) -> Outcome:
    """See `run_contained`."""
    with tempfile.TemporaryDirectory(prefix="forge-sandbox-") as made:
        work = Path(made).resolve()
        for name, text in files.items():
            file = work / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode("utf-8", "surrogatepass"))
        own = (Path(sys.prefix), Path(sys.base_prefix), *read_only)
        rules = profile(work, [path.resolve() for path in own], Path.home().resolve())
        taken = len(_listed("-U", str(os.getuid()), "-o", "pid="))
        environment = {
            "PATH": f"{sys.prefix}/bin:/usr/bin:/bin", "HOME": str(work), "LANG": "en_US.UTF-8",
        }  # fmt: skip
        with tempfile.TemporaryFile() as given:
            given.write(stdin.encode("utf-8", "surrogatepass"))
            given.seek(0)
            process = subprocess.Popen(
                with_limits(command, rules, limits, taken), stdin=given, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, env=environment, cwd=work, start_new_session=True,
            )  # fmt: skip
        seen = watch(process, limits, partial(_memory, process.pid), partial(_stop, process))
    why, code = seen.why, process.returncode
    if not why and code < 0:
        why = "time" if -code == signal.SIGXCPU else "killed"
    return Outcome(None if why else code, seen.stdout, seen.stderr, seen.seconds, why)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # Not after the command was waited for alone: what it started may still be there.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _memory(group: int) -> int:
    rows = [line.split() for line in _listed("-A", "-o", "pgid=,rss=")]
    return sum(1024 * int(size) for found, size in rows if int(found) == group)


def _listed(*options: str) -> list[str]:
    found = subprocess.run(["/bin/ps", *options], capture_output=True, text=True, check=False)
    return found.stdout.splitlines()


def why_not() -> str:
    """Why this machine cannot contain code; "" if it can. It runs a command to find out."""
    if not _PROGRAM.exists():
        return f"{_PROGRAM} is missing"
    try:
        done = run([sys.executable, "-I", "-S", "-c", ""], {}, [], Limits(), "")
    except (ForgeError, OSError) as error:
        return str(error)
    return "" if done.exit_code == 0 else f"sandbox-exec refused: {done.stderr.strip()}"
