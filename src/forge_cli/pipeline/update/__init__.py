"""A deployed run brought up to date with its repository at a fraction of the cost."""

from __future__ import annotations

from forge_cli.pipeline.update.changes import Changes, Count, changes

__all__ = ["Changes", "Count", "changes"]
