"""The folder of a cycle's reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forge_cli.core.errors import UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import atomic_file
from forge_cli.guard.records import Cycle, Drift
from forge_cli.guard.reports.facts import facts
from forge_cli.guard.reports.fields import Pictures
from forge_cli.guard.reports.rendering import PAGES, render
from forge_cli.guard.reports.symbols import Differs
from forge_cli.guard.state import Guarded
from forge_cli.train.callbacks.metrics import read_rows


def write_reports(
    guarded: Guarded,
    cycle: Cycle,
    *,
    drifts: Sequence[Drift] | None = None,
    symbols: Sequence[Differs] | None = None,
    drift_picture: bytes = b"",
    rollback: str = "",
    templates: Path | None = None,
    reporter: Reporter = SILENT,
) -> Path:
    """Write a cycle's reports into `reports/ID/`, each atomically; that folder.

    A template of the user that is wrong is warned of, and the builtin one is used and says so.

    Args:
        drifts: the history of drift, the oldest first (None: as `guarded` has it).
        symbols, rollback: see `facts`.
        drift_picture: an SVG document of the history, for the pages.
        templates: folder of the user's templates.
    """
    run, before = (_folder(guarded, path) for path in (cycle.run, cycle.before))
    history = guarded.drifts() if drifts is None else drifts
    pictures = Pictures(loss=_loss_picture(run), drift=drift_picture.decode())
    told = facts(cycle, history, run, before, symbols=symbols, pictures=pictures, rollback=rollback)
    made = told["training"] is not None
    out = guarded.reports / cycle.id
    # The report last: where it stands, the others do.
    for page in sorted(PAGES, key=lambda name: name.startswith("report")):
        if page.startswith("release-note") and not made:
            continue
        try:
            text = render(page, told, templates)
        except UsageError as error:
            reporter.warn(f"{error.message} ({error.hint})")
            text = render(page, told | {"fault": error.message})
        with atomic_file(out / page) as stream:
            stream.write(text.encode())
    return out


def _folder(guarded: Guarded, path: str) -> Path | None:
    folder = (guarded.repository / path).resolve()
    return folder if path and folder.is_dir() else None


def _loss_picture(run: Path | None) -> str:
    from forge_cli.evaluate.report.figures import loss_curves

    return loss_curves(read_rows(run)) if run else ""
