"""The text of the profile and of the command for macOS; neither was run."""

from __future__ import annotations

import shlex
from pathlib import Path

from forge_cli.evaluate.sandbox.limits import Limits
from forge_cli.evaluate.sandbox.seatbelt import profile, with_limits

WORK = Path("/private/var/folders/x/forge")


def test_profile() -> None:
    home, shown = Path("/Users/me"), Path('/Users/me/a "b"\\c')
    lines = profile(WORK, [shown], home).splitlines()
    assert lines[:2] == ["(version 1)", "(allow default)"]
    assert all(line.count("(") == line.count(")") for line in lines)
    assert "(deny network*)" in lines and "(deny file-write*)" in lines
    quoted = r'"/Users/me/a \"b\"\\c"'
    # The last rule that matches holds.
    assert (
        lines.index('(deny file-read* (subpath "/Users/me"))')
        < lines.index(f"(allow file-read* (subpath {quoted}))")
        < lines.index("(deny file-write*)")
        < lines.index(f'(allow file-write* (subpath "{WORK}"))')
    )
    assert not any("file-write" in line and "Users" in line for line in lines)


def test_limits_come_before_the_command() -> None:
    limits = Limits(cpu_seconds=1.5, disk_bytes=1 << 20, processes=4)
    shell, flag, text = with_limits(["python", "-c", "print('a b')"], "(rules)", limits, 100)
    assert (shell, flag) == ("/bin/sh", "-c")
    *settings, last = text.split(" && ")
    assert settings == [
        "ulimit -c 0", "ulimit -t 2", "ulimit -f 2048", "ulimit -n 256", "ulimit -u 104",
    ]  # fmt: skip
    words = shlex.split(last)
    assert words[:4] == ["exec", "/usr/bin/sandbox-exec", "-p", "(rules)"]
    assert words[4:] == ["python", "-c", "print('a b')"]
