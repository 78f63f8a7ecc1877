"""The builtin templates, to read and to change."""

from __future__ import annotations

from pathlib import Path

from forge_cli.core.errors import UsageError
from forge_cli.core.jsonl import atomic_file
from forge_cli.guard.config import GuardConfig
from forge_cli.guard.reports.rendering import PAGES, builtin_source, user_file


def templates_folder(config: GuardConfig, file: Path) -> Path | None:
    """The folder that guard.yaml names, from its own; None: it names none.

    Raises:
        UsageError: there is no such folder.
    """
    if config.templates is None:
        return None
    folder = (file.parent / Path(config.templates).expanduser()).resolve()
    if not folder.is_dir():
        raise UsageError(
            f"{file}: templates: {folder}: no such folder",
            "make it with: forge guard templates --copy DIR",
        )
    return folder


def list_templates(folder: Path | None) -> list[tuple[str, str, str]]:
    """(file name, builtin or the user's path, what its page tells) of each template.

    Args:
        folder: of the user's templates.
    """
    names = [(f"{page}.j2", text) for page, text in PAGES.items()]
    return [(name, str(user_file(folder, name) or "builtin"), text) for name, text in names]


def copy_templates(target: Path) -> list[Path]:
    """Write a template for each page that extends the builtin one, and so changes nothing yet.

    Raises:
        UsageError: one is there already; nothing is written.
    """
    copies = {target / f"{page}.j2": _own(page) for page in PAGES}
    for file in copies:
        if file.exists():
            raise UsageError(f"{file}: is there already", "choose another folder, or remove it")
    for file, text in copies.items():
        with atomic_file(file) as stream:
            stream.write(text.encode())
    return list(copies)


def _own(page: str) -> str:
    """What the builtin template's own comment says, and how to go on from it."""
    comment = builtin_source(f"{page}.j2").partition("#}")[0].removeprefix("{#")
    lines = " ".join(comment.split())
    return (
        f'{{% extends "builtin/{page}.j2" %}}\n'
        f"{{# {lines}\n"
        "   A block that you write here comes instead of the builtin one, whose text super() is:\n"
        "   {% block end %}{{ super() }} … {% endblock %}. See docs/reports.md. #}\n"
    )
