"""What the guardian knows of a repository, in its `.forge/guard/`; survives being killed.

state.json      what is deployed, the cycle under way, what was spent, when smoke was asked
history.jsonl   each cycle that ended (`records.Cycle`), the oldest first
drift.jsonl     each measurement (`records.Drift`)
lock            one look at a time
guardian        one guardian for each repository, held as long as it runs
runs/ID/        a run directory for each retraining
reports/ID/     report.html, report.md, pull-request.md, release-note.md
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forge_cli.core.errors import Busy, ForgeError
from forge_cli.core.jsonl import write_json
from forge_cli.guard.records import Cycle, Drift, Kept, Outcome

K = TypeVar("K", bound=Kept)
Phase = Literal["begun", "trained", "judged", "passed", "exported", "deployed"]


class Deployed(Kept):
    """The model that is served, and the run that it is from.

    Attributes:
        version: on the server, or the folder. tags: of the repository, when it was trained.
    """

    run: str
    version: str = ""
    commit: str = ""
    time: str = ""
    tags: list[str] = Field(default_factory=list)
    corrections: int = 0


class Spent(Kept):
    """A retraining that was begun: when, and for how many seconds it has run so far."""

    time: str
    seconds: float = 0.0


class State(BaseModel):
    """state.json.

    Attributes:
        phase: how far `cycle` has come, the last of what is done.
        attempts: how often its next step was begun, but for what a user interrupted.
        smoke: when the served model was last asked.
        refused: the commit whose model was last refused: it is not trained again.
        refused_share: its drift, where a model was trained for it (else 0): more is waited for.
    """

    model_config = ConfigDict(extra="forbid")

    deployed: Deployed | None = None
    cycle: Cycle | None = None
    phase: Phase = "begun"
    attempts: int = 0
    spent: list[Spent] = Field(default_factory=list)
    smoke: str = ""
    refused: str = ""
    refused_share: float = 0.0


class Guarded:
    """A repository under guard: its files, and the lock on them."""

    def __init__(self, repository: Path, name: str) -> None:
        self.repository, self.name = repository, name or repository.name
        self.folder = repository / ".forge" / "guard"

    @property
    def reports(self) -> Path:
        """Folder of reports, one below it for each cycle."""
        return self.folder / "reports"

    @property
    def runs(self) -> Path:
        """Folder of run directories."""
        return self.folder / "runs"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from looking; the system drops the lock with the process.

        Raises:
            Busy: another process looks at this repository.
        """
        with self._locked("lock", "another guardian works on it"):
            yield

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Keep other guardians out for as long as this one runs; a single look is still let in.

        Raises:
            Busy: another one guards this repository.
        """
        with self._locked("guardian", "it is guarded already"):
            yield

    @contextmanager
    def _locked(self, name: str, why: str) -> Iterator[None]:
        self.prepare()
        with open(self.folder / name, "a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                who = stream.read().strip()
                raise Busy(
                    f"{self.repository}: {why}" + f" (process {who})" * bool(who),
                    "see: forge guard status; or stop that one",
                ) from None
            stream.truncate(0)
            stream.write(str(os.getpid()))
            stream.flush()
            yield

    def guardian(self) -> int | None:
        """The process that guards it, or looks at it now; None: none does."""
        return self._holder("guardian") or self._holder("lock")

    def _holder(self, name: str) -> int | None:
        try:
            with open(self.folder / name) as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(stream.read().strip() or 0)
        except (OSError, ValueError):
            pass
        return None

    def load(self) -> State:
        """The state; a new one where there is none.

        Raises:
            ForgeError: the file is broken.
        """
        file = self.folder / "state.json"
        try:
            return State.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return State()
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]
            raise ForgeError(
                f"{file}: {reason['msg']}",
                "the served model is as it was; remove the file to begin anew",
            ) from None

    def save(self, state: State) -> None:
        """Write the state atomically."""
        self.prepare()
        write_json(self.folder / "state.json", state.model_dump(mode="json"))

    def add(self, entry: Cycle | Drift) -> None:
        """Append to the history of cycles, or of drift."""
        self.prepare()
        file = self._file(type(entry))
        with open(file, "ab") as stream:
            # A line that a crash cut off must not swallow this one.
            stream.write(b"\n" * _torn(file) + entry.model_dump_json().encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def cycles(self, outcome: Outcome | None = None) -> list[Cycle]:
        """The history, the oldest first; of a cycle that was written twice the last line.

        Args:
            outcome: only those that ended so.
        """
        found = {one.id: one for one in _read(self._file(Cycle), Cycle)}.values()
        return [one for one in found if outcome in (None, one.outcome)]

    def drifts(self) -> list[Drift]:
        """Each measurement, the oldest first."""
        return _read(self._file(Drift), Drift)

    def _file(self, kind: type[Cycle] | type[Drift]) -> Path:
        return self.folder / ("history.jsonl" if kind is Cycle else "drift.jsonl")

    def prepare(self) -> None:
        """Make the folder, which git and mining pass by."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ignored = self.folder.parent / ".gitignore"
        if not ignored.exists():
            ignored.write_text("*\n")


def _read(file: Path, kind: type[K]) -> list[K]:
    if not file.exists():
        return []
    found = []
    for line in file.read_bytes().splitlines():
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError:
            continue  # cut off by a crash, or of another version
    return found


def _torn(file: Path) -> bool:
    if not file.exists() or not file.stat().st_size:
        return False
    with open(file, "rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"
