"""Jobs that are over go after a while, and their folders with them."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from forge_cli.serve.jobs.job import Conflict, Job
from forge_cli.serve.jobs.store import JobStore, is_name

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


def _is_old(job: Job, before: datetime) -> bool:
    return job.is_over and bool(job.ended) and datetime.fromisoformat(job.ended) < before


def _folders(home: Path) -> list[Path]:
    try:
        return [path for path in home.iterdir() if is_name(path.name) and path.is_dir()]
    except OSError:
        return []
