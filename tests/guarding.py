"""A repository of small modules under guard, with a tiny model served from a folder."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from forge_cli.core.events import Silent
from forge_cli.guard.config import GuardConfig
from forge_cli.guard.cycle import look
from forge_cli.guard.machine import Machine
from forge_cli.guard.records import Cycle
from forge_cli.guard.state import Guarded

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
OPEN = {
    "examples": 1, "quotes": None, "new": None, "old": None, "forgetting": None, "parity": False,
}  # fmt: skip


class Warned(Silent):
    """Keeps what a user would have to act on."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


class Guarding:
    """A repository, and a clock that goes on an hour with each look."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.repository, self.file = folder / "repo", folder / "guard.yaml"
        self.hours, self.told = 0, Warned()
        self.repository.mkdir(exist_ok=True)
        self.git("init", "-q")
        for number in range(14):
            self.write(f"part{number}", number)
        self.commit("first")
        self.settings = {
            "model": str(model), "rank": 4, "layers": 0, "steps": 6, "learning_rate": 5e-3,
            "max_tokens": 4096, "distractors": 1, "questions": 2, "valid_every": 3,
            "valid_rows": 4, "answer_rows": 4, "condition_rows": 1, "eval_rows": 12,
            "resamples": 1000, "quant": ["f16"], "retention_rows": 0, "importance_rows": 0,
            "smoke_questions": 1, "conditions": ["given"], "sides": ["base", "tuned"],
            "cache": False, "jobs": 1,
        }  # fmt: skip

    def git(self, *arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, "-C", str(self.repository), *arguments], check=True)

    def write(self, module: str, number: int) -> None:
        """A module of three documented functions."""
        words = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa"]
        one, two = words[number % 7], words[(number * 3 + 1) % 7]
        text = "\n\n".join(
            f"def {verb}_{one}_{number}({two}: int, limit: int = {number}) -> int:\n"
            f'    """{verb.title()} the {one} of {module} by {two} within its limit."""\n'
            f"    return {two} {sign} limit + {number}\n"
            for verb, sign in (("count", "+"), ("scale", "*"), ("shift", "-"))
        )
        (self.repository / f"{module}.py").write_text(text)

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", message)

    def add(self, name: str, count: int) -> None:
        """New modules, committed."""
        for number in range(count):
            self.write(f"{name}{number}", 30 + len(name) * 7 + number)
        self.commit(f"{count} more")

    def look(self, gates: dict[str, Any] | None = None, **more: Any) -> Cycle:
        self.hours += 1
        force = more.pop("force", False)
        config = GuardConfig.model_validate(
            {
                "repositories": [{"path": "repo", "name": "mine", "settings": self.settings}],
                "quality_gates": OPEN | (gates or {}),
                "deploy": {"to": "directory", "smoke_every": "1000h"},
                "budget": {"retrainings": 100},
            }
            | more
        )
        now = NOW + timedelta(hours=self.hours)
        return look(
            config, self.file, config.repositories[0], self.told, machine=Machine(),
            now=lambda: now, force=force,
        )  # fmt: skip

    @property
    def guarded(self) -> Guarded:
        return Guarded(self.repository, "mine")

    @property
    def served(self) -> str:
        return str((self.guarded.folder / "served" / "current").readlink())
