"""A run directory: the unit of work, resumable, every file in it written atomically.

run.json       settings with their origins, versions, model, stages done, metrics
data/          chunks.jsonl  examples.jsonl  valid.jsonl  rejects.jsonl
checkpoints/   all that training needs to go on: the last ones and the best
adapters/      the best adapters, to evaluate and export
metrics.jsonl  one row per optimiser step, with the validation loss where one was taken
report.html    the curves of training     samples.jsonl  answers while it learned
eval/ export/  what those stages wrote
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from forge_cli.core.errors import Busy, ForgeError, UsageError
from forge_cli.core.jsonl import write_json
from forge_cli.core.records import Run

_PACKAGES = ("forge-cli", "mlx", "mlx-lm", "tree-sitter-language-pack", "transformers", "gguf")


class RunDir:
    """A run directory and the state in its `run.json`."""

    def __init__(self, path: Path, state: dict[str, Any]) -> None:
        self.path = path
        self.state = state

    @classmethod
    def open(
        cls,
        path: Path,
        settings: Mapping[str, Any],
        origins: Mapping[str, str] | None = None,
        *,
        source: str = "",
        fresh: bool = False,
    ) -> RunDir:
        """Create the run directory, or take up the one that was made with the same settings.

        Raises:
            UsageError: it exists with other settings (each difference is named), or
                `path` is a directory that is not a run.
        """
        if fresh and path.exists():
            if not (path / "run.json").exists():
                raise UsageError(f"{path}: not a run directory", "--fresh only clears a run")
            with cls(path, {}).locked():  # also one whose run.json is broken
                shutil.rmtree(path)
        if (path / "run.json").exists():
            run = cls.load(path)
            if run.state["stages"]:
                run._must_match(settings, source)
                return run
            # Nothing is done yet (a first try that failed early): nothing to protect.
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path}: exists and is not a run directory", "give another --run")
        run = cls(
            path,
            {
                "source": source,
                "settings": dict(settings),
                "origins": dict(origins or {}),
                "versions": _versions(),
                "stages": {},
                "metrics": {},
                "files": [],
            },
        )
        run.save()
        return run

    @classmethod
    def load(cls, path: Path) -> RunDir:
        """The run directory at `path`.

        Raises:
            UsageError: there is none. ForgeError: its run.json is broken.
        """
        file = path / "run.json"
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                f"{path}: not a run directory (no run.json)", "make one with: forge train REPO"
            ) from None
        except json.JSONDecodeError as error:
            raise ForgeError(
                f"{file}:{error.lineno}: {error.msg}", "start over with --fresh"
            ) from None
        known = ("settings", "stages", "metrics")
        if not isinstance(state, dict) or not all(isinstance(state.get(k), dict) for k in known):
            raise ForgeError(f"{file}: not what Forge writes there", "start over with --fresh")
        return cls(path, {"source": "", "files": [], **state})

    def _must_match(self, settings: Mapping[str, Any], source: str) -> None:
        before = self.state["settings"]
        changed = [
            f"{key} {before.get(key)!r} → {settings.get(key)!r}"
            for key in sorted(set(before) | set(settings))
            if before.get(key) != settings.get(key)
        ]
        if source and self.state["source"] != source:
            changed.append(f"source {self.state['source']} → {source}")
        if changed:
            raise UsageError(
                f"{self.path}: made with other settings: {', '.join(changed)}",
                "start it over with --fresh, or keep both with --run DIR",
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the run directory; the system drops it with us.

        Raises:
            Busy: another process works in it.
        """
        import fcntl

        with open(self.path / ".lock", "a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(
                    f"{self.path}: another forge works in this run",
                    "wait for it, or keep both with --run DIR",
                ) from None
            yield

    def save(self) -> None:
        """Write run.json atomically."""
        write_json(self.path / "run.json", self.state)

    def file(self, *parts: str) -> Path:
        """The path of a file in the run directory; its folder exists."""
        path = self.path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def is_done(self, stage: str) -> bool:
        """Whether `stage` ended well in this run."""
        return stage in self.state["stages"]

    def finish(self, stage: str, **facts: Any) -> None:
        """Note that `stage` ended well, with what is worth keeping about it."""
        self.state["stages"][stage] = facts
        self.save()

    def record(self, **metrics: Any) -> None:
        """Keep measured values, by stage name."""
        self.state["metrics"].update(metrics)
        self.save()

    def add_files(self, files: list[str]) -> None:
        """Keep the paths of exported files."""
        self.state["files"] = sorted(set(self.state["files"]) | set(files))
        self.save()

    def drop_file(self, file: str) -> None:
        """Forget an exported file that is no longer there."""
        self.state["files"] = [kept for kept in self.state["files"] if kept != file]
        self.save()

    def as_record(self) -> Run:
        """The `run` record that goes down the pipe."""
        return Run(
            path=str(self.path),
            model=self.state["settings"].get("model", ""),
            metrics=self.state["metrics"],
            files=self.state["files"],
        )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
