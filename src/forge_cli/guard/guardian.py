"""The guardian's loop: looks at what the watcher yields, and goes on whatever fails."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.guard.records import Cycle
from forge_cli.guard.rules import in_words, next_look, span
from forge_cli.guard.watch import Watcher

# Seconds that a repository rests after a failure: twice as long each time, up to the second.
REST, LONGEST_REST = 60.0, 3600.0


def guard(watcher: Watcher, look: Callable[[Path], Cycle], reporter: Reporter) -> None:
    """Look at each repository that is worth it, one after the other, until the watcher ends.

    One that fails is warned of and rests for a while; the others go on. One that is held back
    is looked at again when that is over.

    Args:
        look: one look at that folder, see `cycle.look`.

    Raises:
        KeyboardInterrupt: as it comes; what was under way goes on the next time.
    """
    failures: dict[Path, int] = {}
    for due in watcher:
        for repository in sorted(due):
            if watcher.stop.is_set():
                return
            cycle = _looked(look, repository, reporter)
            if cycle is None or cycle.outcome == "failed":
                failures[repository] = failures.get(repository, 0) + 1
                seconds = rest_after(failures[repository])
                watcher.rest(repository, seconds)
                reporter.note(f"{repository}: is looked at again in {span(seconds)}")
                continue
            failures.pop(repository, None)
            reporter.note(_in_a_line(cycle))
            if cycle.decision:
                moment = next_look(cycle.decision, datetime.now().astimezone())
                if cycle.outcome == "held" and moment:
                    watcher.look_at(repository, moment)


def rest_after(failures: int) -> float:
    """Seconds to rest after so many failures in a row."""
    return min(LONGEST_REST, REST * 2.0 ** min(failures - 1, 16))


def _in_a_line(cycle: Cycle) -> str:
    if cycle.outcome in ("nothing to do", "held") and cycle.decision:
        return f"{cycle.name}: {in_words(cycle.decision)}"
    version, error = f" as {cycle.version}" * bool(cycle.version), f": {cycle.error}"
    return f"{cycle.name}: {cycle.outcome}{version}{error * bool(cycle.error)}"


def _looked(look: Callable[[Path], Cycle], repository: Path, reporter: Reporter) -> Cycle | None:
    try:
        return look(repository)
    except ForgeError as error:
        hint = f"; {error.hint}" if error.hint else ""
        reporter.warn(f"{repository}: {error.message}{hint}")
    except Exception as error:  # the other repositories are guarded nevertheless
        reporter.warn(f"{repository}: unexpected {type(error).__name__}: {error}")
    return None
