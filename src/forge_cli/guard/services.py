"""The guardian as a service of the user: a launchd agent, or a unit of systemd.

Both run `forge guard run` at low priority, start it again where it failed, and not where its
settings are wrong or it was told to end. The agent was not run on a Mac.
"""

from __future__ import annotations

import hashlib
import plistlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# What the guardian needs of the environment that installs it; never a token.
PASSED_ON = ("PATH", "FORGE_CACHE", "FORGE_DATA", "HF_HOME")
_AGAIN_AFTER = 60  # seconds


@dataclass(frozen=True)
class Service:
    """A file that makes the system run the guardian.

    Attributes:
        load, unload: the commands that start and end it, which the file alone does not.
        before: what comes before loading where another one was loaded; it may fail.
        also: files that loading made.
    """

    file: Path
    text: bytes
    load: tuple[tuple[str, ...], ...]
    unload: tuple[tuple[str, ...], ...]
    also: tuple[Path, ...] = ()
    before: tuple[tuple[str, ...], ...] = ()


def name_of(settings: Path) -> str:
    """The service's name: one for each guard.yaml."""
    folder = re.sub(r"[^A-Za-z0-9-]+", "-", settings.parent.name).strip("-")
    digest = hashlib.sha256(str(settings).encode("utf-8", "surrogateescape")).hexdigest()
    return f"forge-guard-{folder}-{digest[:8]}" if folder else f"forge-guard-{digest[:8]}"


def launchd(
    settings: Path, command: Sequence[str], environ: Mapping[str, str], home: Path, uid: int
) -> Service:
    """An agent in ~/Library/LaunchAgents.

    Args:
        settings: guard.yaml, absolute. command: runs the guardian. uid: of the user.
    """
    name = name_of(settings)
    file = home / "Library" / "LaunchAgents" / f"{name}.plist"
    log = str(home / "Library" / "Logs" / f"{name}.log")
    told = {
        "Label": name,
        "ProgramArguments": list(command),
        "WorkingDirectory": str(settings.parent),
        "EnvironmentVariables": _passed_on(environ),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": _AGAIN_AFTER,
        "ExitTimeOut": 2 * _AGAIN_AFTER,
        "ProcessType": "Background",
        "LowPriorityIO": True,
        "Nice": 10,
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }
    domain = f"gui/{uid}"
    unload = (("launchctl", "bootout", f"{domain}/{name}"),)
    return Service(
        file=file,
        text=plistlib.dumps(told),
        load=(("launchctl", "bootstrap", domain, str(file)),),
        unload=unload,
        before=unload,
    )


def systemd(
    settings: Path, command: Sequence[str], environ: Mapping[str, str], home: Path
) -> Service:
    """A unit in ~/.config/systemd/user; the arguments are those of `launchd`."""
    name = f"{name_of(settings)}.service"
    base = environ.get("XDG_CONFIG_HOME", "")
    folder = (Path(base) if base else home / ".config") / "systemd" / "user"
    passed = "\n".join(
        "Environment=" + _quoted(f"{key}={value}") for key, value in _passed_on(environ).items()
    )
    # In ExecStart a dollar stands for a variable too.
    run = " ".join(_quoted(part).replace("$", "$$") for part in command)
    text = f"""# Made by forge guard install.
[Unit]
Description=Forge guard, {_plain(settings)}

[Service]
Type=exec
ExecStart={run}
WorkingDirectory={_plain(settings.parent)}
{passed}
Nice=10
IOSchedulingClass=idle
Restart=on-failure
RestartSec={_AGAIN_AFTER}
RestartPreventExitStatus=2
KillMode=mixed
TimeoutStopSec={2 * _AGAIN_AFTER}

[Install]
WantedBy=default.target
"""
    tool = ("systemctl", "--user")
    return Service(
        file=folder / name,
        text=text.encode("utf-8", "surrogateescape"),
        load=((*tool, "daemon-reload"), (*tool, "enable", name), (*tool, "restart", name)),
        unload=((*tool, "stop", name), (*tool, "daemon-reload")),
        also=(folder / "default.target.wants" / name,),
    )


def _passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    return {key: environ[key] for key in PASSED_ON if environ.get(key)}


def _plain(value: object) -> str:
    """Text of a unit that takes no quotes, but specifiers."""
    return str(value).replace("%", "%%")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_plain(escaped)}"'
