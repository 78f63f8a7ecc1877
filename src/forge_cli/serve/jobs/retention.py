"""Jobs that are over go after a while, and their folders with them; so do uploads left halfway."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from forge_cli.serve.jobs.files import FileStore
from forge_cli.serve.jobs.job import Conflict, Job
from forge_cli.serve.jobs.store import JobStore, is_name

PATIENCE = 600.0  # seconds without a new block after which an upload is given up
_PAGE = 200


def remove_old(store: JobStore, home: Path, days: float, now: datetime | None = None) -> list[str]:
    """Remove the jobs that ended more than `days` ago; returns their ids.

    A folder is removed by the workers of the machine that it is on, whoever removed the job.
    """
    before = (now or datetime.now(UTC)) - timedelta(days=days)
    removed, place = [], ""
    while page := store.page(_PAGE, place):
        place = page[-1].id
        for job in page:
            if _is_old(job, before):
                with suppress(Conflict, KeyError):  # another was sooner, or it is tried again
                    store.remove(job.id)
                    removed.append(job.id)
    for folder in _folders(home):
        found = store.find(folder.name)
        if found and found.removed:
            shutil.rmtree(folder, ignore_errors=True)
    return removed


class Unfinished:
    """Uploads that were begun and have not ended, as one who looks again and again sees them.

    One that is under way writes block after block. What did not grow for `patience` seconds by the
    clock of the one who looks is removed; should its server live after all, it is told so when it
    comes to the end, and has kept nothing.
    """

    def __init__(self, store: JobStore, patience: float = PATIENCE) -> None:
        self.files, self.patience = FileStore(store), patience
        self._seen: dict[str, tuple[int, float]] = {}  # → its blocks, and since when

    def remove(self, at: float) -> list[str]:
        """Look once more; returns the ids that were given up.

        Args:
            at: seconds, of which only differences count.
        """
        begun = self.files.begun()
        seen, self._seen = self._seen, {}
        gone = []
        for number, name in begun.items():
            before, since = seen.get(name, (0, at))
            blocks = self.files.blocks(name, before)
            if blocks != before or at - since < self.patience:
                self._seen[name] = blocks, since if blocks == before else at
            elif self.files.give_up(number, name):
                gone.append(name)
        return gone


def _is_old(job: Job, before: datetime) -> bool:
    return job.is_over and bool(job.ended) and datetime.fromisoformat(job.ended) < before


def _folders(home: Path) -> list[Path]:
    try:
        return [path for path in home.iterdir() if is_name(path.name) and path.is_dir()]
    except OSError:
        return []
