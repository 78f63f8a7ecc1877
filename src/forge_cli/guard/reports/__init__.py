"""Reports of a cycle from templates that a user can override: drift, training, release, review."""

from __future__ import annotations

from forge_cli.guard.reports.copying import copy_templates, list_templates, templates_folder
from forge_cli.guard.reports.facts import facts
from forge_cli.guard.reports.rendering import PAGES, render
from forge_cli.guard.reports.symbols import symbols_of
from forge_cli.guard.reports.writing import write_reports

__all__ = [
    "PAGES", "copy_templates", "facts", "list_templates", "render", "symbols_of",
    "templates_folder", "write_reports",
]  # fmt: skip
