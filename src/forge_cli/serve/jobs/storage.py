"""Where jobs are kept: SQLite, Redis or Postgres, by one URL; huey's storage speaks to each.

What is used of it: values by key, of which `put_if_empty` writes one exactly once, counters, and
its queue, which wakes a worker that waits. See docs/adr-queue.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from forge_cli.core.errors import ForgeError, UsageError

_NAME = "forge"
_WAIT = 1  # seconds that a worker waits for a job at a time, where the backend can wait


def open_storage(url: str) -> Any:
    """The storage at `url`: `sqlite:///folder/jobs.db`, `redis://…` or `postgresql://…`.

    Raises:
        UsageError: another scheme. ForgeError: the server cannot be reached, or the client for it
            is not installed.
    """
    scheme = urlsplit(url).scheme
    try:
        if scheme == "sqlite":
            return _sqlite(Path(url.removeprefix("sqlite:///")))
        if scheme in ("redis", "rediss", "unix"):
            from huey.storage import PriorityRedisStorage

            found = PriorityRedisStorage(_NAME, url=url, read_timeout=_WAIT)
            found.conn.ping()
            return found
        if scheme in ("postgresql", "postgres"):
            from huey.storage import PostgresStorage

            return PostgresStorage(_NAME, dsn=url, read_timeout=_WAIT, table_prefix="forge")
    except ImportError as error:
        raise ForgeError(
            f"{scheme}: its client is not installed ({error.name})",
            "pip install '.[serve-redis]' or '.[serve-postgres]' in a checkout of Forge",
        ) from None
    except Exception as error:  # each client has a tree of its own
        raise ForgeError(f"the queue at {_shown(url)}: {error}", "check --queue") from None
    raise UsageError(
        f"--queue {_shown(url)}: not a queue that Forge knows",
        "sqlite:///FILE, redis://HOST/DB or postgresql://HOST/DB",
    )


def _sqlite(file: Path) -> Any:
    from huey.storage import SqliteStorage

    file.parent.mkdir(parents=True, exist_ok=True)
    # A job that was accepted outlives a power cut; so many processes may wait for one another.
    return SqliteStorage(_NAME, filename=str(file), fsync=True, timeout=30)


def _shown(url: str) -> str:
    """The URL without a password."""
    split = urlsplit(url)
    return split._replace(netloc=split.netloc.rpartition("@")[2]).geturl()
