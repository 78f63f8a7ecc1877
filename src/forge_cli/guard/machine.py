"""What the machine, its user and the working tree are doing now; None where that is not known.

The parts for a Mac are read from its tools' output as it is documented; they have not run on one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from forge_cli.mine.history import git

_SUPPLIES = Path("/sys/class/power_supply")
_TERMINALS = Path("/dev/pts")
_CHARGERS = {"Mains", "USB", "Wireless"}


@dataclass(frozen=True)
class Machine:
    """What may hold a retraining back, at this moment.

    Attributes:
        on_battery: whether it runs on its battery. idle_seconds: since the user typed or pointed.
        uncommitted: files of the working tree that differ from HEAD, or are new.
    """

    on_battery: bool | None = None
    idle_seconds: float | None = None
    uncommitted: int | None = None


def look(repository: Path | None = None) -> Machine:
    """The machine now, and the working tree of `repository`."""
    if sys.platform == "darwin":
        on_battery = of_pmset(_told("pmset", "-g", "batt"))
        idle = of_ioreg(_told("ioreg", "-r", "-d", "1", "-c", "IOHIDSystem"))
    else:
        on_battery = of_supplies(_SUPPLIES)
        ids = [
            line.split()[0]
            for line in _told("loginctl", "list-sessions", "--no-legend").split("\n")
            if line.strip()
        ]
        asked = "--property=Type", "--property=IdleHint", "--property=IdleSinceHint"
        sessions = _told("loginctl", "show-session", *asked, *ids) if ids else ""
        terminals = _TERMINALS.glob("[0-9]*")
        known = [of_sessions(sessions, time.time()), of_terminals(terminals, time.time())]
        idle = min((one for one in known if one is not None), default=None)
    return Machine(on_battery, idle, uncommitted(repository) if repository else None)


def uncommitted(repository: Path) -> int | None:
    """Files that differ from HEAD, or are new and not ignored; None: no git there."""
    # Without that option git would lock the index, and a commit made meanwhile would fail.
    told = git(repository, "--no-optional-locks", "status", "--porcelain", "--no-renames", "-z")
    return None if told is None else told.count("\0")


def of_pmset(text: str) -> bool | None:
    """Whether `pmset -g batt` says that power comes from the battery."""
    found = re.search(r"drawing from '([^']*)'", text)
    return None if found is None else found[1] == "Battery Power"


def of_ioreg(text: str) -> float | None:
    """Seconds since the last event of `ioreg`'s HIDIdleTime, which counts nanoseconds."""
    found = re.search(r'"HIDIdleTime" = (\d+)', text)
    return None if found is None else int(found[1]) / 1e9


def of_supplies(folder: Path) -> bool | None:
    """Whether a battery feeds this machine, by the folders of Linux' power supplies.

    None: Linux tells nothing of them. A machine without a battery is on power.
    """
    if not folder.is_dir():
        return None
    chargers, discharging = [], []
    for supply in folder.iterdir():
        if _line(supply / "scope") == "Device":
            continue  # a mouse's
        kind = _line(supply / "type")
        if kind in _CHARGERS:
            chargers.append(_line(supply / "online") == "1")
        elif kind == "Battery":
            discharging.append(_line(supply / "status") == "Discharging")
    if not discharging or any(chargers):
        return False
    return bool(chargers) or any(discharging)


def of_sessions(text: str, now: float) -> float | None:
    """Seconds since a graphical session of `loginctl show-session` was used.

    A desktop that never told logind of being idle is not known.

    Args:
        now: seconds since 1970.
    """
    known = []
    for block in text.split("\n\n"):
        told = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        since = int(told.get("IdleSinceHint") or 0)
        if told.get("Type") in ("x11", "wayland", "mir") and since:
            idle = told.get("IdleHint") == "yes"
            known.append(max(0.0, now - since / 1e6) if idle else 0.0)
    return min(known, default=None)


def of_terminals(devices: Iterable[Path], now: float) -> float | None:
    """Seconds since something was typed at one of these terminals.

    Linux counts reading of a terminal as access, to 8 seconds.
    """
    known = []
    for device in devices:
        try:
            known.append(max(0.0, now - device.stat().st_atime))
        except OSError:
            continue  # closed meanwhile
    return min(known, default=None)


def _line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _told(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


__all__ = [
    "Machine", "look", "of_ioreg", "of_pmset", "of_sessions", "of_supplies", "of_terminals",
    "uncommitted",
]  # fmt: skip
