"""How far a repository is from what its deployed model was trained on.

    now (mined, by the cache) ── changes ── then (the run's chunks)  → share of symbols
    repository: commit, tags, corrections
    rows → asking: loss and score of the deployed model on new code and on old

A look is cheap; a model is loaded only when a trigger needs it (see `measure`).
"""

from __future__ import annotations

from forge_cli.guard.drift.measure import measure, remember
from forge_cli.guard.drift.plot import drift_plot
from forge_cli.guard.drift.repository import corrections_in, head, tags_in

__all__ = ["corrections_in", "drift_plot", "head", "measure", "remember", "tags_in"]
