"""Back to what a name was before, and what there is to go back to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.deploy.address import check_name, full_name, server_url, with_tag
from forge_cli.deploy.registry import Entry, Registry

if TYPE_CHECKING:
    from forge_cli.deploy.ollama import Server


@dataclass(frozen=True)
class Version:
    """A version of a name on the server.

    Attributes:
        size: bytes. served: whether the name is this version now.
        entry: when and from what it was deployed from here; None if it was not.
    """

    name: str
    size: int
    modified: str
    served: bool
    entry: Entry | None


def roll_back(name: str, *, host: str, registry: Path, reporter: Reporter = SILENT) -> str:
    """Let `name` be the version before the one that it is; returns that version.

    What it was before is known from the registry, else it is the newest other version on the
    server. The version is asked a hello before the name moves.

    Raises:
        UsageError: a bad name, or there is nothing of it on the server.
        ForgeError: there is no version before; the server fails. `name` is as it was.
    """
    from forge_cli.deploy.ollama import Server
    from forge_cli.deploy.rollout import move
    from forge_cli.deploy.smoke import HELLO, ask

    check_name(name)
    name, url, log = full_name(name), server_url(host), Registry(registry)
    with Server(url) as server:
        reporter.note(f"Ollama {server.version()} at {url}")
        found = _versions(server, name, url, log)
        current = next((one for one in found if one.served), None)
        target = _before(found, current, log, url, name)
        shown = server.show(target)
        ask(server, target, (HELLO,), shown.system, reporter)
        try:
            move(server, name, target, reporter)
        except BaseException:
            if current:
                server.copy(current.name, name)
            raise
    log.add("rolled back", url, name, target, previous=current.name if current else "")
    return target


def versions(name: str, *, host: str, registry: Path) -> list[Version]:
    """The versions of `name` on the server, the newest first.

    Raises:
        UsageError: a bad name, or there is nothing of it. ForgeError: the server fails.
    """
    from forge_cli.deploy.ollama import Server

    check_name(name)
    url = server_url(host)
    with Server(url) as server:
        server.version()
        return _versions(server, full_name(name), url, Registry(registry))


def _versions(server: Server, name: str, url: str, log: Registry) -> list[Version]:
    stem = with_tag(name, "").lower()
    there = [one for one in server.models() if one.name.lower().startswith(stem)]
    if not there:
        raise UsageError(f"{name}: {url} has no such model", "forge deploy RUN --name NAME")
    served = next((one.digest for one in there if one.name.lower() == name.lower()), "")
    known = {e.version: e for e in log.entries(url, name) if e.action == "deployed"}
    found = [
        Version(one.name, one.size, one.modified, one.digest == served, known.get(one.name))
        for one in there
        if one.name.lower() != name.lower()
    ]
    return sorted(found, key=lambda one: one.modified, reverse=True)


def _before(
    found: list[Version], current: Version | None, log: Registry, url: str, name: str
) -> str:
    """The version to go back to; its absence is a ForgeError that says what there is."""
    names = [one.name for one in found]
    told = log.served_before(url, name, current.name) if current else ""
    if told in names:
        return told
    if told:
        raise ForgeError(
            f"{name}: was {told} before, which {url} no longer has",
            f"it has: {', '.join(names)}; name one by hand: ollama cp VERSION {name}",
        )
    older = names[found.index(current) + 1 :] if current else names
    if not older:
        raise ForgeError(
            f"{name}: there is no version before {current.name if current else 'it'}",
            "nothing was changed; deploy another run: forge deploy RUN --name NAME",
        )
    return older[0]
