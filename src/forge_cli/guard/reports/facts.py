"""From what the guardian wrote down, and a run's files, to what a report tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from forge_cli.core.errors import ForgeError
from forge_cli.guard.records import Cycle, Decision, Drift
from forge_cli.guard.reports.answers import HELD_OUT, read_answers, release_note
from forge_cli.guard.reports.fields import (
    ChangedPath,
    Compared,
    DecisionFields,
    DriftFields,
    Facts,
    Fields,
    GateFields,
    Measured,
    Pictures,
    ReasonFields,
    Tally,
)
from forge_cli.guard.reports.symbols import Differs, symbols_between
from forge_cli.guard.reports.training import read_training

F = TypeVar("F", bound=Fields)
# Outcome → a sentence, and whether it is good news.
HEADLINES: dict[str, tuple[str, bool | None]] = {
    "nothing to do": ("No rule asks for a retraining; the served model stays.", None),
    "held": ("A retraining is asked for and held back for now.", None),
    "deployed": ("A better model was made, passed its gates and is served.", True),
    "refused": ("A model was made and is not served: it did not pass its gates.", False),
    "failed": ("The retraining failed; what was served before still is.", False),
    "rolled back": ("The served model was given up; the one before is back.", False),
    "still good": ("The served model still answers its smoke questions.", True),
}
# Paths, symbols of one of them, and measurements that are listed.
PATHS, SYMBOLS, HISTORY = 12, 12, 12
_CODE = {"new": "new code", "old": "old code"}
_FIRST = {"new": HELD_OUT}


def facts(
    cycle: Cycle,
    drifts: Sequence[Drift] = (),
    run: Path | None = None,
    before: Path | None = None,
    *,
    symbols: Sequence[Differs] | None = None,
    pictures: Pictures | None = None,
    rollback: str = "",
) -> dict[str, Any]:
    """What the templates are given: `fields.Facts` as plain data.

    Args:
        drifts: measurements, the oldest first.
        run, before: run directories of the new and of the deployed model, where there are any.
        symbols: of what differs, see `symbols` (None: as the two runs have mined).
        rollback: command that goes back to the version before.
    """
    made, note = None, None
    headline, good = HEADLINES[cycle.outcome]
    unread: list[str] = []
    with _kept_going(unread):
        made = read_training(run, before) if run else None
    with _kept_going(unread):
        note = release_note(read_answers(run), str(before or "")) if run else None
    with _kept_going(unread):
        if symbols is None and run and before:
            symbols = symbols_between(before, run)
    undo = cycle.outcome == "deployed" and cycle.previous
    found = Facts(
        id=cycle.id,
        repository=Path(cycle.repository).name,
        model=cycle.name,
        outcome=cycle.outcome,
        headline=headline,
        good=good,
        started=cycle.started,
        ended=cycle.ended,
        seconds=cycle.seconds,
        mode=cycle.mode or "",
        error=cycle.error,
        commit=cycle.drift.commit[:10] if cycle.drift else "",
        run=Path(cycle.run).name,
        before=Path(cycle.before).name,
        version=cycle.version,
        previous=cycle.previous,
        rollback=rollback if undo else "",
        drift=_drift(cycle, symbols or ()),
        history=[_like(Measured, one) for one in reversed(drifts[-HISTORY:])],
        decision=_decision(cycle.decision),
        gates=[_like(GateFields, gate) for gate in cycle.gates],
        comparisons=compared(cycle),
        against="base" if cycle.mode == "first" else "deployed",
        training=made,
        note=note,
        smoke=[Tally(name=name, number=number) for name, number in cycle.smoke.items()],
        pictures=pictures or Pictures(loss="", drift=""),
        unread=unread,
        fault="",
    )
    return found.model_dump()


def compared(cycle: Cycle) -> list[Compared]:
    """The cycle's comparisons as rows of a table, new code first, what decides first."""
    from forge_cli.evaluate.report.names import METRICS

    order, names = list(METRICS), _FIRST if cycle.mode == "first" else _CODE
    rows = []
    for key in sorted(cycle.comparison, key=lambda one: (one != "new", one)):
        metrics = cycle.comparison[key]
        for name in sorted(metrics, key=lambda one: (one not in METRICS, _place(order, one))):
            one = metrics[name]
            rows.append(
                Compared(
                    code=names.get(key, key),
                    metric=name.replace("_", " "),
                    means=METRICS.get(name, ""),
                    deployed=one["base"],
                    new=one["tuned"],
                    difference=one["difference"],
                    low=one["low"],
                    high=one["high"],
                    rows=one["n"],
                    files=one.get("clusters", 0),
                    verdict=one["verdict"],
                )
            )
    return rows


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


@contextmanager
def _kept_going(unread: list[str]) -> Iterator[None]:
    """A cycle that failed over a broken file is told all the same."""
    try:
        yield
    except ForgeError as error:
        unread.append(error.message)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        unread.append(f"{type(error).__name__}: {error}")


def _drift(cycle: Cycle, symbols: Sequence[tuple[str, str, str]]) -> DriftFields | None:
    if (drift := cycle.drift) is None:
        return None
    # To a first model all of it is new.
    paths = [] if cycle.mode == "first" else drift.paths
    by_path: dict[str, list[tuple[str, str]]] = {path: [] for path in paths}
    for what, path, symbol in symbols:
        by_path.setdefault(path, []).append((what, symbol or "text"))
    paths = sorted(by_path, key=lambda path: -len(by_path[path]))
    values = {name: one for name, one in drift if name in DriftFields.model_fields}
    return DriftFields(
        **values | {"commit": drift.commit[:10], "since": drift.since[:10]},
        most_changed=[_changed(path, by_path[path]) for path in paths[:PATHS]],
        more_paths=max(0, len(paths) - PATHS),
    )


def _changed(path: str, found: Sequence[tuple[str, str]]) -> ChangedPath:
    kinds = ("added", "changed", "gone")
    shown = sorted(found, key=lambda one: kinds.index(one[0]))[:SYMBOLS]
    lists = {kind: [symbol for what, symbol in shown if what == kind] for kind in kinds}
    more = len(found) - len(shown)
    return ChangedPath(path=path, number=len(found) or None, more=more, **lists)


def _decision(decision: Decision | None) -> DecisionFields | None:
    if decision is None:
        return None
    return DecisionFields(
        wanted=decision.wanted,
        held=decision.held,
        mode=decision.mode,
        triggers=[_like(ReasonFields, one) for one in decision.triggers],
        holds=[_like(ReasonFields, one) for one in decision.holds],
    )


def _like(kind: type[F], record: Any) -> F:
    """The fields of `kind` that a record has by the same names."""
    return kind(**{name: getattr(record, name) for name in kind.model_fields})
