"""The questions that tell whether the deployed model knows new code as well as old.

New: about definitions that were added or rewritten. Old: the run's own test rows, which it
never trained on either, as far as the repository still bears them out. Some kinds of question
are harder than others, so that each new row is set against an old one of its kind: the
difference is then the code's, not the questions'.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from forge_cli.core.answer_form import is_abstention
from forge_cli.core.config import Settings
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Chunk, Example
from forge_cli.core.run_dir import RunDir
from forge_cli.evaluate.sample import spread
from forge_cli.pipeline.later import rows_about, unknown
from forge_cli.pipeline.update import Changes
from forge_cli.pipeline.update.lineage import still_true

Kind = tuple[str, bool]


@dataclass(frozen=True)
class Rows:
    """As many new rows as old ones, of the same kinds."""

    new: list[Example]
    old: list[Example]


def find_rows(
    run: RunDir,
    trained: Sequence[Chunk],
    now: Sequence[Chunk],
    found: Changes,
    doubted: Collection[str],
    s: Settings,
    limit: int,
    reporter: Reporter,
) -> Rows:
    """At most `limit` new rows, from as many files as there are, and as many old ones.

    No teacher writes questions here: a look at a repository should cost nothing.

    Args:
        trained: the chunks that the run was made of. now: those of today.
        doubted: paths of files that nothing is asked about. s: of the run.
    """
    differing = [*found.added, *(new for _, new in found.changed)]
    fresh = [chunk for chunk in differing if chunk.path not in doubted]
    alone = s.model_copy(update={"teacher": "none"})
    new = rows_about(now, unknown(trained, fresh), alone, reporter)
    return matched(new, held_out(run, now), limit, s.seed)


def held_out(run: RunDir, now: Sequence[Chunk]) -> list[Example]:
    """The run's test rows that the repository still bears out; none that a teacher wrote."""
    file = run.path / "data" / "examples.jsonl"
    if not file.exists():
        return []
    rows = (row for row in read_records(file, Example) if row.split == "test")
    return list(still_true((row for row in rows if row.origin.teacher is None), now))


def matched(new: Sequence[Example], old: Sequence[Example], limit: int, seed: int) -> Rows:
    """Each new row with an old one of its kind that no other took, as long as there are."""
    waiting: dict[Kind, list[Example]] = {}
    for row in reversed(spread(old, len(old), seed)):
        waiting.setdefault(_kind(row), []).append(row)
    pairs = [
        (row, waiting[_kind(row)].pop())
        for row in spread(new, len(new), seed)
        if waiting.get(_kind(row))
    ][:limit]
    return Rows([row for row, _ in pairs], [row for _, row in pairs])


def _kind(row: Example) -> Kind:
    return row.origin.kind, is_abstention(row.answer.final)
