"""Templates of a user: over the builtin ones, in a sandbox, and never instead of a report."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from report_sample import HOSTILE, drift
from typer.testing import CliRunner

from forge_cli.cli.guard_templates import templates
from forge_cli.core.errors import UsageError
from forge_cli.core.events import Silent
from forge_cli.guard.config import read_config
from forge_cli.guard.records import Cycle
from forge_cli.guard.reports import (
    PAGES,
    copy_templates,
    facts,
    render,
    templates_folder,
    write_reports,
)
from forge_cli.guard.state import Guarded

CYCLE = Cycle(
    id="one", repository="/r/shop", name="shop", started="now", outcome="held", drift=drift()
)
TOLD = facts(CYCLE)


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def own(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_block_is_overridden_and_the_rest_stays(tmp_path: Path) -> None:
    text = '{% extends "builtin/report.md.j2" %}{% block end %}Ours: {{ id }}.{% endblock %}'
    made = render("report.md", TOLD, own(tmp_path, "report.md.j2", text))
    assert made == render("report.md", TOLD) + "\nOurs: one.\n"


def test_what_a_users_template_prints_is_escaped_too(tmp_path: Path) -> None:
    path = "{{ drift.most_changed[2].path }}"
    assert TOLD["drift"]["most_changed"][2]["path"] == HOSTILE[2]
    own(tmp_path, "drift.html.j2", path)
    own(tmp_path, "drift.md.j2", f"{{% macro m() %}}{path}{{% endmacro %}}{{{{ m() }}}}")
    for page in ("drift.html", "drift.md"):
        assert render(page, TOLD, tmp_path) == "&lt;script&gt;alert(1)&lt;/script&gt;.py\n"
    # Also in a list that is printed as it is.
    own(tmp_path, "drift.md.j2", "{{ ['@bob [x](http://e)', id] }}")
    page = render("drift.md", TOLD, tmp_path)
    assert "@bob" not in page and "[x]" not in page and "://" not in page


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("a\n{{ drfit.share }}", 2, "unknown name drfit, did you mean drift? Known: id, repo"),
        ("{{ drift.aded }}", 1, "there is no aded here, did you mean added? Known: time"),
        ("\n\n{{ training.steps }}", 3, "there is no steps in none (ask first: {% if … %})"),
        ("{% if x %}", 1, "Unexpected end of template"),
        ("{{ id|nosuch }}", 1, "No filter named 'nosuch'"),
        ("{{ id.__class__.__mro__ }}", 1, "not allowed in a template: access to attribute"),
        ("{{ gates.append(1) }}", 1, "not allowed in a template"),
        ("\n{{ 1 / 0 }}", 2, "division by zero"),
        ("{% include '../../etc/passwd' %}", 1, "no template ../../etc/passwd"),
        ("{{ drift.share|duration(1, 2) }}", 1, "takes 1 positional argument"),
        ("{{ range(999999999)|list }}", 1, "Range too big"),
    ],
)
def test_an_error_is_a_line_and_the_builtin_page_is_written(
    tmp_path: Path, text: str, line: int, why: str
) -> None:
    folder, heard = own(tmp_path / "own", "report.md.j2", text), Heard()
    guarded = Guarded(tmp_path, "shop")
    made = write_reports(guarded, CYCLE, templates=folder, reporter=heard)
    assert len(heard.warnings) == 1
    assert heard.warnings[0].startswith(f"{folder}/report.md.j2:{line}: ")
    assert why in heard.warnings[0] and "\n" not in heard.warnings[0]
    page = (made / "report.md").read_text()
    assert page.startswith("# shop: held\n") and "A template of yours was not used:" in page
    assert {file.name for file in made.iterdir()} == {p for p in PAGES if "release" not in p}


def test_a_link_out_of_the_folder_is_none(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a key")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "report.md.j2").symlink_to(secret)
    assert render("report.md", TOLD, tmp_path / "own") == render("report.md", TOLD)


def test_copies_change_nothing_until_they_are_changed(tmp_path: Path) -> None:
    copy_templates(tmp_path)
    for page in PAGES:
        assert render(page, TOLD, tmp_path) == render(page, TOLD)
    with pytest.raises(UsageError, match="is there already"):
        copy_templates(tmp_path)


def test_the_folder_is_told_from_where_guard_yaml_is(tmp_path: Path) -> None:
    file = tmp_path / "guard.yaml"
    file.write_text("templates: own\n")
    with pytest.raises(UsageError, match="no such folder"):
        templates_folder(read_config(file), file)
    (tmp_path / "own").mkdir()
    assert templates_folder(read_config(file), file) == tmp_path / "own"


def test_the_command_lists_and_copies(tmp_path: Path) -> None:
    app, run = typer.Typer(), CliRunner().invoke
    app.command()(templates)
    folder, file = tmp_path / "own", tmp_path / "guard.yaml"
    copied = run(app, ["--copy", str(folder)])
    assert len(copied.stdout.splitlines()) == len(PAGES)
    (folder / "drift.md.j2").unlink()
    file.write_text("templates: own\n")
    listed = dict(
        line.split("\t")[:2] for line in run(app, ["--config", str(file)]).stdout.splitlines()
    )
    assert listed["drift.md.j2"] == "builtin"
    assert listed["report.html.j2"] == str(folder / "report.html.j2")
