"""One look at a repository: what is another than the deployed model was trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from forge_cli.core.config import Settings
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Chunk, Verdict
from forge_cli.core.run_dir import RunDir
from forge_cli.guard.config import RetrainWhen
from forge_cli.guard.docs_fit import docs_fit
from forge_cli.guard.drift.asking import ask_deployed
from forge_cli.guard.drift.repository import corrections_in, head, tags_since
from forge_cli.guard.drift.rows import find_rows
from forge_cli.guard.records import Drift
from forge_cli.guard.state import Deployed, Guarded
from forge_cli.pipeline import mine_chunks
from forge_cli.pipeline.update import Changes, Suspect, changes, settings_of, suspects
from forge_cli.pipeline.update.lineage import read_plan
from forge_cli.pipeline.update.suspects import DAMAGED, doubtful_docs

ROWS, ANSWERS = 24, 8
# Which doubts refuse an update. What vanished may have been deleted (in httpx it was), and
# what was in doubt when the deployed model was trained was not learned: both stay left out.
_BROKEN = {"damaged", "syntax", "documentation"}
# A mean of fewer rows says more of the rows than of the model.
LEAST = 8


def measure(
    guarded: Guarded,
    deployed: Deployed | None,
    when: RetrainWhen,
    settings: Settings,
    *,
    ask: bool = True,
    rows: int = ROWS,
    answers: int = ANSWERS,
    reporter: Reporter = SILENT,
) -> Drift:
    """How far the repository, as it stands in its folder, is from the deployed model.

    It is mined as the deployed run mined it. Of a state that was measured before (the same
    files, the same run) the history tells, and nothing is compared or asked again. Nothing is
    written but caches; see `remember`.

    Loss and score need the model, so they are measured where `when` has a threshold for one of
    them, or for the record once half of its symbol drift is reached; under `LEAST` rows they
    stay unknown.

    Args:
        settings: mine the repository where nothing is deployed yet: all of it is added then.
        ask: whether the model may be loaded. Without, loss and score are known from before
            or not at all.
        rows: new rows, and old rows, for the loss. answers: of each, for the score.

    Raises:
        ForgeError: nothing can be mined, or the run of the deployed model is gone or broken.
    """
    then = _Then.of(guarded, deployed) if deployed else None
    left_out: list[Verdict] = []
    s = then.s if then else settings
    now = b"".join(mine_chunks(guarded.repository, s, reporter, left_out.append).lines())
    contents = _hash(now, left_out)
    before = _before(guarded, deployed.run if deployed else "", contents)
    since = then.commit if then else ""
    wanted = bool(then and ask)
    if before and not (wanted and _wants(when, before.share) and not before.asked):
        return before.model_copy(update=_surroundings(guarded, deployed, since))
    chunks = [Chunk.model_validate_json(line) for line in now.splitlines()]
    trained = list(read_records(then.file, Chunk)) if then else []
    found = changes(trained, chunks)
    doubts = suspects(trained, chunks, found, left_out, then.suspected) if then else []
    drift = Drift(
        run=deployed.run if deployed else "",
        since=since,
        contents=contents,
        suspicious=_told(doubts, trained, found) if then else [],
        to_read=doubtful_docs(found, doubts) if then else [],
        **_counted(found),
        **_surroundings(guarded, deployed, since),
    )
    if not (then and wanted and _wants(when, drift.share)):
        return drift
    doubted = {doubt.path for doubt in doubts}
    own = find_rows(then.run, trained, chunks, found, doubted, s, rows, reporter)
    drift = drift.model_copy(
        update={"asked": True, "new_rows": len(own.new), "old_rows": len(own.old)}
    )
    if len(own.new) < LEAST:
        reporter.note(f"{len(own.new)} rows about new code: too few for a loss ({LEAST} at least)")
        return drift
    cache = guarded.folder / "drift"
    new, old = ask_deployed(then.run, (own.new, own.old), answers, cache, reporter)
    scores = {"new_score": new.score, "old_score": old.score}
    return drift.model_copy(update={"new_loss": new.loss, "old_loss": old.loss, **scores})


def remember(guarded: Guarded, drift: Drift) -> None:
    """Put it into the history, unless the last entry says the same but for its time."""
    last = next(reversed(guarded.drifts()), None)
    if last is None or last.model_copy(update={"time": drift.time}) != drift:
        guarded.add(drift)


@dataclass(frozen=True)
class _Then:
    """The deployed run: its settings, the file of what it mined, of which commit,
    and the files that it did not trust."""

    run: RunDir
    s: Settings
    file: Path
    commit: str
    suspected: dict[str, list[str]]

    @classmethod
    def of(cls, guarded: Guarded, deployed: Deployed) -> _Then:
        path = guarded.repository / deployed.run
        gone = f"{path}: the run of the deployed model is gone"
        hint = f"to begin anew remove {guarded.folder / 'state.json'}; what is served stays"
        try:
            run = RunDir.load(path)
        except UsageError:
            raise ForgeError(gone, hint) from None
        file = path / "data" / "chunks.jsonl"
        if not file.exists():
            raise ForgeError(f"{gone} in part: it has no data/chunks.jsonl", hint)
        commit = str(run.state["stages"].get("mine", {}).get("commit", ""))
        suspected = read_plan(run).get("suspected", {})
        return cls(run, settings_of(run).settings, file, commit, suspected)


def _hash(mined: bytes, left_out: Sequence[Verdict]) -> str:
    """16 hex digits of what was mined, and of which files are damaged: those are not in it."""
    damaged = sorted(f"\0{v.check} {v.path}" for v in left_out if v.check in DAMAGED)
    return hashlib.sha256(mined + "".join(damaged).encode()).hexdigest()[:16]


def _before(guarded: Guarded, run: str, contents: str) -> Drift | None:
    """The last measurement of the same files against the same run, the one that asked first."""
    same = [one for one in guarded.drifts() if (one.run, one.contents) == (run, contents)]
    return max(reversed(same), key=lambda one: one.asked, default=None)


def _wants(when: RetrainWhen, share: float) -> bool:
    """Whether loss and score are worth loading a model."""
    if share == 0:
        return False  # nothing is new
    by_rule = when.loss is not None or when.score is not None
    return by_rule or (when.drift is not None and share >= when.drift / 2)


def _told(doubts: Sequence[Suspect], old: Sequence[Chunk], found: Changes) -> list[str]:
    """What looks broken rather than new, file by file and over all documentation that is new."""
    told = [f"{doubt.path}: {doubt.reason}" for doubt in doubts if doubt.check in _BROKEN]
    fit = docs_fit([*found.added, *(new for _, new in found.changed)], old)
    if fit.suspicious:
        told.append(
            f"documentation: {fit.fitting} of {fit.docs} new docstrings speak of their own code, "
            f"of those before {fit.before:.0%} do"
        )
    return told


def _counted(found: Changes) -> dict[str, Any]:
    counts = found.counts.values()
    differing: Sequence[Chunk] = [
        *found.added, *found.gone, *(chunk for pair in found.changed for chunk in pair)
    ]  # fmt: skip
    return {
        "symbols": sum(one.differing + one.moved + one.unchanged for one in counts),
        "added": sum(one.added for one in counts),
        "changed": sum(one.changed for one in counts),
        "gone": sum(one.gone for one in counts),
        "moved": sum(one.moved for one in counts),
        "share": found.share,
        "paths": sorted({chunk.path for chunk in differing}),
    }


def _surroundings(guarded: Guarded, deployed: Deployed | None, since: str) -> dict[str, Any]:
    """What may differ between two looks at the same files."""
    repository = guarded.repository
    seen = deployed.corrections if deployed else 0
    known = deployed.tags if deployed else []
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": head(repository),
        "tags": tags_since(repository, since, known) if deployed else [],
        "corrections": max(0, corrections_in(repository) - seen),
    }
