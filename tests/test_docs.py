"""The documents say what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_records_page_is_current() -> None:
    made = subprocess.run(
        [sys.executable, "docs/make_records.py"], cwd=ROOT, capture_output=True, check=True
    )
    assert (ROOT / "docs" / "records.md").read_bytes() == made.stdout


def test_links_and_paths_exist() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_page_holds_two_versions() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]
    for page in [*pages, *ROOT.glob("recipes/*"), *ROOT.glob("src/**/*.yaml")]:
        marks = re.findall(r"^(?:<{7}|>{7}) .*", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert not marks, f"{page}: a merge was left half done: {marks}"


def test_the_readme_shows_every_package() -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("src/forge_cli/\n")[1]
    shown = set(re.findall(r"^      (\w+)/ ", tree, re.MULTILINE))
    packages = {file.parent.name for file in (ROOT / "src" / "forge_cli").glob("*/__init__.py")}
    assert shown == packages


def test_recipes_carry_their_command() -> None:
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        second = recipe.read_text(encoding="utf-8").splitlines()[1]
        assert second == f"# forge train REPO --recipe {recipe.stem}"
