"""Which files an agent may name: those below the folders that the server was started with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.guard.skills import Skill

# A built-in name, or OWNER/NAME of the Hugging Face hub.
_MODEL = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Roots:
    """Folders, with symbolic links resolved; the first is where relative paths start."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = [folder.resolve() for folder in folders]

    @property
    def first(self) -> Path:
        """Where commands run."""
        return self.folders[0]

    def resolve(self, skill: Skill, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with absolute paths.

        Raises:
            UsageError: a path leads out of the folders, also through a symbolic link, or what is
                to be written there would replace a file that is not of Forge's records.
        """
        found = dict(arguments)
        for name, kind in skill.paths.items():
            if name in found:
                path = self.path(name, found[name])
                if kind == "write":
                    _check_target(name, path)
                found[name] = str(path)
        for name in skill.models:
            if name in found:
                found[name] = self._model(name, found[name])
        return found

    def path(self, name: str, value: str) -> Path:
        """One path of the argument `name`, resolved."""
        try:
            found = (self.first / value).resolve()
            found.exists()  # OSError: no path of this system, such as one that is too long
        except (ValueError, OSError, RuntimeError):
            raise UsageError(f"{name}: not a path", "name a file below the root") from None
        if not any(found.is_relative_to(folder) for folder in self.folders):
            raise UsageError(
                f"{name} {value}: leads out of what this server may touch",
                f"it may touch what is below {', '.join(map(str, self.folders))}; "
                "forge mcp --root DIR opens another folder",
            )
        return found

    def _model(self, name: str, value: str) -> str:
        named = _MODEL.fullmatch(value) and not value.endswith(".gguf")
        if named and not self.path(name, value).exists():
            return value
        return str(self.path(name, value))


def _check_target(name: str, path: Path) -> None:
    """Let records replace records, and nothing else; a run directory looks after itself."""
    if not path.exists() or path.is_dir():
        return
    try:
        with open(path, "rb") as stream:
            first = stream.readline(1 << 20)
        found = json.loads(first) if first else {"record": None}
        if isinstance(found, dict) and "record" in found:
            return
    except (OSError, ValueError):
        pass
    raise UsageError(f"{name} {path}: is there already, and not Forge's", "name another file")
