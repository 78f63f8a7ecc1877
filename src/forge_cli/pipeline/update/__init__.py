"""A deployed run brought up to date with its repository at a fraction of the cost.

changes (what differs) → suspects (what is not to be trusted) → plan (what is asked, and for which
split) → rows (new ones, and old ones that are still true) → training → corrections → judging
"""

from __future__ import annotations

from forge_cli.pipeline.update.changes import Changes, Count, changes
from forge_cli.pipeline.update.corrections import learn_corrections
from forge_cli.pipeline.update.judging import judge_update
from forge_cli.pipeline.update.lineage import settings_of
from forge_cli.pipeline.update.suspects import Suspect, suspects
from forge_cli.pipeline.update.updating import NothingNew, update

__all__ = [
    "Changes", "Count", "NothingNew", "Suspect", "changes", "judge_update", "learn_corrections",
    "settings_of", "suspects", "update",
]  # fmt: skip
