"""A new run from a deployed one: mine, compare, ask about what changed, replay, train on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forge_cli.core.accelerator import accelerator
from forge_cli.core.config import Resolved, Settings
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import read_records, write_json, write_records
from forge_cli.core.records import Chunk, Example, Verdict
from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline.continued import with_adapters
from forge_cli.pipeline.data import mine_into
from forge_cli.pipeline.update.changes import Changes, changes
from forge_cli.pipeline.update.lineage import (
    PLAN,
    TRAINED,
    Lineage,
    name_of,
    read_lineage,
    settings_of,
)
from forge_cli.pipeline.update.plan import make_plan
from forge_cli.pipeline.update.rows import ask_anew, assemble
from forge_cli.pipeline.update.suspects import Suspect, by_file, suspects
from forge_cli.pipeline.update.training import RATE, full_rows, prepared, train_on

# Old training rows for each new one: an update costs a quarter of a full training at the most
# while new rows are less than a fifth of it.
REPLAY = 0.25
# Of a full training's rows: a rate that rises again seems to cost more than few steps gain
# (docs/updating.md).
LEAST = 0.2
HOLD = 0.3  # of the groups of files with new code


class NothingNew(ForgeError):
    """There is nothing to learn: no definition changed that can be asked about."""


def update(
    base: RunDir,
    source: Path,
    run: Path,
    *,
    resolved: Resolved | None = None,
    replay: float = REPLAY,
    least_share: float = LEAST,
    hold_share: float = HOLD,
    rate: float = RATE,
    afresh: bool = False,
    fresh: bool = False,
    fit: Callable[[RunDir], None] | None = None,
    reporter: Reporter = SILENT,
) -> RunDir:
    """Bring a run up to date with its repository, as a run of its own; resumes.

    Only definitions that changed are asked about. Training goes on from the base's adapters,
    over their rows and as many old ones (`replay`) as keep what was learned. Rows that changed
    code made false are dropped. Files stay in their splits; of the changed definitions a share
    is held out, for this update alone, to be judged on (`judge_update`). What this run owes
    later ones stands in data/update.json, what its lineage trained on in data/trained.jsonl.

    Args:
        base: a trained run over a repository; only read.
        source: the repository as it is now. run: the new run directory.
        resolved: the settings (None: those of the base).
        replay: old training rows for each new one.
        least_share: training rows that there should be, as a share of a full training's; where
            few are new, more old ones are replayed.
        hold_share: of the groups of files with new code, to be judged on.
        rate: the peak learning rate, as a share of the one that a full training has.
        afresh: a full training from the base model, with the same splits.
        fresh: start `run` over.
        fit: trains in place of this process (see `training.prepared`).

    Raises:
        UsageError: `base` is no such run, or `run` was begun with other values.
        NothingNew: nothing that changed can be asked about.
        ForgeError, GateFailed: as the stages do.
    """
    resolved = resolved or settings_of(base)
    own = resolved.settings.model_copy(
        update={"adapters": None if afresh else str(base.path.resolve())}
    )
    resolved = with_adapters(Resolved(own, resolved.origins | {"adapters": "update"}))
    asked = {
        "base": str(base.path.resolve()), "mode": "afresh" if afresh else "incremental",
        "replay": replay, "least_share": least_share, "hold_share": hold_share, "rate": rate,
    }  # fmt: skip
    directory = RunDir.open(
        run, resolved.identity(), resolved.origins, source=str(source.resolve()), fresh=fresh
    )
    with directory.locked():
        _must_match(directory, asked)
        with_update(directory, base, source, resolved.settings, reporter)
        s = prepared(directory, base, resolved.settings)
        if fit:
            fit(directory)
        else:
            with accelerator(reporter):
                train_on(directory, s, reporter)
    return directory


def _must_match(run: RunDir, asked: dict[str, Any]) -> None:
    """Keep what was asked for in run.json.

    Raises:
        UsageError: the run was begun with other values.
    """
    before = run.state.get("update")
    if before is None and run.state["stages"]:
        raise UsageError(f"{run.path}: a run that is no update", "give another folder")
    changed = [
        f"{key} {before[key]!r} → {value!r}"
        for key, value in asked.items()
        if before and before.get(key) != value
    ]
    if changed and run.state["stages"]:
        raise UsageError(
            f"{run.path}: begun with other values: {', '.join(changed)}",
            "start it over, or give another folder",
        )
    run.state["update"] = (before or {}) | asked
    run.save()


def with_update(run: RunDir, base: RunDir, source: Path, s: Settings, reporter: Reporter) -> None:
    """Mine, compare, ask and validate into data/, each once."""
    mine_into(run, source, s, reporter)
    if run.is_done("data"):
        return
    past = read_lineage(base)
    now = list(read_records(run.path / "data" / "chunks.jsonl", Chunk))
    found = changes(past.chunks, now)
    doubts = _doubts(run, past, now, found)
    how = run.state["update"]
    afresh = how["mode"] == "afresh"
    plan = make_plan(
        past, now, found, {doubt.path for doubt in doubts}, s,
        hold_share=how["hold_share"], afresh=afresh,
    )  # fmt: skip
    raw = run.file("data", "raft.jsonl")
    if not run.is_done("raft"):
        for doubt in doubts:
            reporter.warn(f"{doubt.path}: not learned from: {doubt.reason}")
        count = write_records(ask_anew(now, plan, s, reporter), raw)
        run.finish("raft", examples=count, changes=_told(found), suspects=list(map(asdict, doubts)))
    rows = assemble(
        list(read_records(raw, Example)), past, now, plan, s,
        replay=how["replay"], least=round(how["least_share"] * full_rows(base)), afresh=afresh,
        reporter=reporter,
    )  # fmt: skip
    if not rows.fresh:
        raise NothingNew(
            f"{base.path}: nothing that changed since can be asked about",
            "wait for more changes; the run stays as it is",
        )
    write_records(rows.examples, run.file("data", "examples.jsonl"))
    write_records(rows.earlier, run.file("data", TRAINED))
    write_records(rows.rejected, run.file("data", "rejects.jsonl"))
    files = by_file(now)
    suspected = {d.path: sorted(map(name_of, files.get(d.path, ()))) for d in doubts}
    write_json(run.file("data", PLAN), {
        "generation": past.generation + 1, "files": plan.files, "owed": sorted(plan.owed),
        "new": rows.new, "suspected": suspected,
    })  # fmt: skip
    tested = sum(row.split == "test" for row in rows.examples)
    counts = {
        "fresh": rows.fresh, "replayed": rows.replayed, "tested_new": len(rows.new),
        "tested_old": tested - len(rows.new), "rejected": len(rows.rejected),
    }  # fmt: skip
    run.state["update"] |= {"counts": counts, "generation": past.generation + 1}
    reporter.note(
        f"{found.share:.1%} changed: {rows.fresh} new and {rows.replayed} old rows to train on, "
        f"{len(rows.new)} new and {tested - len(rows.new)} old ones held out"
    )
    run.finish("data", examples=len(rows.examples), rejected=len(rows.rejected))


def _doubts(run: RunDir, past: Lineage, now: list[Chunk], found: Changes) -> list[Suspect]:
    """Suspicious files, and those of before that stayed as they were."""
    left_out = read_records(run.path / "data" / "files-left-out.jsonl", Verdict)
    return suspects(past.chunks, now, found, left_out, past.suspected)


def _told(found: Changes) -> dict[str, Any]:
    return {"share": found.share, **{sort: asdict(count) for sort, count in found.counts.items()}}
