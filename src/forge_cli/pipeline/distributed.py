"""A run by several processes: rank 0 does all of it, the others train along."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from forge_cli.core.config import Resolved
from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.ranks import find_place
from forge_cli.core.records import ANY, Example, Preference
from forge_cli.pipeline.continued import with_adapters

if TYPE_CHECKING:
    from forge_cli.train.distributed import World

Rows = Sequence[Example | Preference]


@contextmanager
def leading(reporter: Reporter, watch: Callable[[], None] = lambda: None) -> Iterator[World | None]:
    """On rank 0: the processes that train together; None where this one is alone.

    Args:
        watch: called while the others are waited for, may raise.

    Raises:
        ForgeError: another rank failed, or did not come.
    """
    place = find_place()
    if place is None:
        yield None
        return
    from forge_cli.train.distributed import join

    world = join(place, watch=watch)
    reporter.note(f"{world.size} processes train together ({place.backend})")
    with world.session():
        yield world


def send_rows(world: World, rows: Rows) -> None:
    """Give the rows to train on to the other ranks, which wait for them in `follow`."""
    world.call()
    world.broadcast("\n".join(row.model_dump_json() for row in rows).encode())


def follow(resolved: Resolved) -> None:
    """On another rank: take rank 0's rows, train along, write nothing that stays.

    Raises:
        SystemExit: this rank or another failed, and rank 0 tells the user.
        ForgeError: there is no rank 0 any more to tell it.
    """
    place = find_place()
    assert place is not None
    from forge_cli import train as stage
    from forge_cli.pipeline import train_settings
    from forge_cli.train.distributed import join

    world = join(place)
    try:
        with world.session(), tempfile.TemporaryDirectory(prefix="forge-rank-") as scratch:
            if not world.rest():
                return
            found = map(ANY.validate_json, world.broadcast(b"").splitlines())
            rows = [row for row in found if isinstance(row, Example | Preference)]
            settings = train_settings(with_adapters(resolved).settings)
            stage.run(rows, out=Path(scratch), world=world, **settings)
    except ForgeError as error:
        if world.told:
            raise SystemExit(error.exit_code) from None
        raise
