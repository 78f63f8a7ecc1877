"""What was deployed where, from which run: one JSON line for each thing that was done."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from forge_cli.core.errors import ForgeError

Action = Literal["deployed", "refused", "rolled back", "removed"]


@dataclass(frozen=True)
class Entry:
    """One event.

    Attributes:
        time: ISO 8601, UTC. url: the server. name: as users ask for it, with its tag.
        version: the name that stays, `model:20261123-ab12cd`. previous: what `name` was before.
        source: the run or file it came from. file: the GGUF. digest: `sha256:…` of it.
        reason: why it was refused.
    """

    time: str
    action: Action
    url: str
    name: str
    version: str
    previous: str = ""
    source: str = ""
    file: str = ""
    digest: str = ""
    reason: str = ""


class Registry:
    """The events in a file, the oldest first."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, action: Action, url: str, name: str, version: str, **more: str) -> None:
        """Write one event down; processes may do so at once.

        Raises:
            ForgeError: the file cannot be written.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps(asdict(Entry(now, action, url, name, version, **more))) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise ForgeError(
                f"{self.path}: cannot be written: {error.strerror}",
                "the model is served; FORGE_DATA names another folder for what was deployed",
            ) from None

    def entries(self, url: str, name: str) -> list[Entry]:
        """What happened to `name` on the server at `url`; a line that is broken is left out."""
        return [one for one in self._read() if (one.url, one.name) == (url, name)]

    def served_before(self, url: str, name: str, version: str) -> str:
        """What `name` was before it became `version`; empty if that is not known."""
        for one in reversed(self.entries(url, name)):
            # Not what a rollback left: a second one goes on backwards.
            if one.action == "deployed" and one.version == version:
                return one.previous
        return ""

    def served(self) -> list[Entry]:
        """Of each name on each server the deployment that it was last heard to be, the one that
        began to be served last at the end."""
        deployed: dict[tuple[str, str], Entry] = {}
        now: dict[tuple[str, str], Entry] = {}
        for one in self._read():
            name, version = (one.url, one.name), (one.url, one.version)
            if one.action == "deployed":
                deployed[version] = one
            if one.action in ("deployed", "rolled back"):
                now.pop(name, None)
                if version in deployed:
                    now[name] = deployed[version]
        return list(now.values())

    def own(self, url: str, name: str) -> list[str]:
        """The versions of `name` that were deployed from here and not removed, oldest first."""
        found: dict[str, None] = {}
        for one in self.entries(url, name):
            if one.action == "deployed":
                found.pop(one.version, None)
                found[one.version] = None
            elif one.action == "removed":
                found.pop(one.version, None)
        return list(found)

    def _read(self) -> Iterator[Entry]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                yield Entry(**json.loads(line))
            except (ValueError, TypeError):  # a write that was cut off
                continue
