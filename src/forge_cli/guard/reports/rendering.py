"""Templates of the user over the builtin ones, in a sandbox; an error names its line and why."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import BaseLoader, StrictUndefined, TemplateNotFound, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing
from markupsafe import Markup

from forge_cli.core.errors import UsageError
from forge_cli.guard.reports.escaping import (
    for_html,
    for_markdown,
    html_code,
    markdown_code,
    shorten,
)
from forge_cli.guard.reports.fields import Facts

BUILTIN = "builtin/"
# What `write_reports` makes; each is a template's name without .j2.
PAGES = {
    "report.md": "what a cycle found, decided, trained and deployed",
    "report.html": "the same as a page, with the curves of loss and drift",
    "drift.md": "how far the repository is from what the model was trained on",
    "drift.html": "the same as a page",
    "release-note.md": "what a model newly knows, what it forgot, what it still gets wrong",
    "release-note.html": "the same as a page",
    "pull-request.md": "a comment on a pull request, short",
}


class Unknown(StrictUndefined):
    """A name that is not there: an error that says which names are."""

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:  # of the sandbox
            return self._undefined_hint
        name, within = str(self._undefined_name), self._undefined_obj
        if within is missing:
            known, text = list(Facts.model_fields), f"unknown name {name}"
        elif isinstance(within, Mapping):
            known, text = [str(key) for key in within], f"there is no {name} here"
        else:
            return f"there is no {name} in {_said(within)}"
        near = difflib.get_close_matches(name, known, n=1)
        return f"{text}{f', did you mean {near[0]}?' if near else ''} Known: {', '.join(known)}"


def _said(value: object) -> str:
    return "none (ask first: {% if … %})" if value is None else f"a value ({type(value).__name__})"


class Templates(BaseLoader):
    """Names as they are: the user's file, else the builtin one; builtin/NAME: that one."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get_source(
        self, environment: object, template: str
    ) -> tuple[str, str | None, Callable[[], bool] | None]:
        """Source, file name for errors, and no check for changes: an environment is made anew."""
        file = None if template.startswith(BUILTIN) else user_file(self.folder, template)
        if file:
            try:
                return file.read_text(encoding="utf-8"), str(file), None
            except UnicodeDecodeError:
                raise TemplateSyntaxError("not UTF-8", 1, template, str(file)) from None
        name = template.removeprefix(BUILTIN)
        try:
            return builtin_source(name), BUILTIN + name, None
        except FileNotFoundError:
            raise TemplateNotFound(template) from None


def user_file(folder: Path | None, name: str) -> Path | None:
    """The user's template of that name; links that lead out of the folder are none."""
    if folder is None:
        return None
    file = (folder / name).resolve()
    return file if file.is_file() and file.is_relative_to(folder.resolve()) else None


def builtin_source(name: str) -> str:
    """The text of a builtin template.

    Raises:
        FileNotFoundError: there is none.
    """
    if ".." in name.split("/"):
        raise FileNotFoundError(name)
    file = files("forge_cli.guard").joinpath("templates", *name.split("/"))
    return file.read_text(encoding="utf-8")


def render(page: str, facts: Mapping[str, Any], folder: Path | None = None) -> str:
    """A page, such as report.md, by the user's template or the builtin one.

    Args:
        folder: of the user's templates.

    Raises:
        UsageError: the user's template is wrong, in one line: file:line, and why.
    """
    environment = _environment(page.endswith(".html"), folder)
    try:
        text = environment.get_template(f"{page}.j2").render(**facts)
    except Exception as error:  # a template may raise whatever its expressions do
        if user_file(folder, f"{page}.j2") is None:
            raise
        raise UsageError(
            _in_one_line(error, folder), "see docs/reports.md; the builtin template was used"
        ) from error
    return re.sub(r"\n{3,}", "\n\n", text.strip()) + "\n"


def _environment(html: bool, folder: Path | None) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        loader=Templates(folder),
        undefined=Unknown,
        # With it macros and blocks give markup; what is printed is escaped by `finalize` before.
        autoescape=True,
        finalize=for_html if html else for_markdown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {name: filter_ for name, (filter_, _) in FILTERS.items()}
    environment.filters["code"] = html_code if html else markdown_code
    return environment


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _plural(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _svg(text: str) -> Markup:
    """A picture of Forge's own within a page."""
    return Markup(text[max(0, text.find("<svg")) :])


# Name → filter, and what it makes.
FILTERS: dict[str, tuple[Callable[..., object], str]] = {
    "code": (markdown_code, "text in the type of code"),
    "shorten": (shorten, "text on one line of at most N characters: `shorten(80)`"),
    "number": (lambda value: f"{value:.3f}", "three decimals"),
    "signed": (lambda value: f"{value:+.3f}".replace("-", "−"), "three decimals, with + or −"),
    "percent": (_percent, "a share as a percentage"),
    "duration": (_duration, "seconds in s, min and h"),
    "megabytes": (lambda value: f"{value / 1e6:,.0f} MB", "bytes in MB"),
    "plural": (_plural, 'a number and its noun: `plural("file")`, `plural("box", "boxes")`'),
    "pair": (lambda row, name: (row[name], row["number"]), "a row's name and number"),
    "svg": (_svg, "a picture of `pictures`, within HTML"),
}


def _in_one_line(error: Exception, folder: Path | None) -> str:
    file, line = "", 0
    if isinstance(error, TemplateSyntaxError):
        file, line = error.filename or error.name or "", error.lineno
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename[-3:] == ".j2"]
        own = [f for f in frames if folder and f.filename.startswith(str(folder.resolve()))]
        for frame in own[-1:] or frames[-1:]:
            file, line = frame.filename, frame.lineno or 0
    if isinstance(error, TemplateNotFound):
        why = f"no template {error.message}"
    elif isinstance(error, SecurityError):
        why = f"not allowed in a template: {error}"
    else:
        why = str(error) or type(error).__name__
    return f"{file}:{line}: {' '.join(why.split())}"
