"""What the sandbox is made of: the check of the machine, the filter, the text for macOS."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from forge_cli.evaluate.sandbox import why_not
from forge_cli.evaluate.sandbox.limits import Limits
from forge_cli.evaluate.sandbox.seatbelt import profile, with_limits
from forge_cli.evaluate.sandbox.syscalls import program

WORK = Path("/private/var/folders/x/forge")


def test_it_works_where_the_kernel_allows_it() -> None:
    """The tests of the sandbox are left out where it does not work: that must not be its fault."""
    spaces = ["unshare", "-U", "-r", "-m", "-p", "-n", "-i", "-u", "-f", "--mount-proc", "true"]
    if not shutil.which("unshare") or subprocess.run(spaces, capture_output=True).returncode:
        pytest.skip("the kernel does not allow it")
    assert why_not() == ""


def test_filter_of_system_calls() -> None:
    for machine in ("x86_64", "aarch64"):
        # Instructions of eight bytes; more than 4,096 the kernel refuses.
        assert len(program(machine)) % 8 == 0 and len(program(machine)) < 8 * 4096
    with pytest.raises(KeyError):
        program("riscv64")


# Neither the profile nor the command has been run on a Mac.


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
