"""What the tests of the sandbox share."""

from __future__ import annotations

import secrets
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from forge_cli.evaluate.sandbox import Limits, Outcome, run_contained, why_not

MB = 1 << 20
# Far more time than any of them needs, and little of all else.
SMALL = Limits(
    seconds=60, cpu_seconds=30, memory_bytes=128 * MB, disk_bytes=4 * MB, processes=8,
    output_bytes=20_000,
)  # fmt: skip
ENDLESS = replace(SMALL, seconds=0.7)
SCRIPT = Path(__file__).parent / "contained.py"

here = pytest.mark.skipif(bool(why_not()), reason=f"no sandbox here: {why_not()}")
linux = pytest.mark.skipif(sys.platform != "linux", reason="what the namespaces of Linux do")


def run(code: str, limits: Limits = SMALL, **given: object) -> Outcome:
    command = [sys.executable, "-I", "-c", dedent(code)]
    return run_contained(command, **{"files": {}, "limits": limits, **given})  # type: ignore[arg-type]


def says(code: str, limits: Limits = SMALL, **given: object) -> str:
    """What code prints that ends well."""
    done = run(code, limits, **given)
    assert (done.exit_code, done.why) == (0, ""), done
    return done.stdout.strip()


def alive(token: str) -> list[str]:
    """Processes of this machine that have a token on their command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if token.encode() in file.read_bytes():
                found.append(file.parent.name)
        except OSError:
            continue
    return found


def new_token() -> str:
    return f"token-{secrets.token_hex(8)}"
