"""SKILL.md folders and the block of AGENTS.md: valid, repeatable, and considerate of others."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.guard.skills import load_skills
from forge_cli.guard.skills.export import BEGIN, END, Written, export_skills

FIELDS = {"name", "description", "license", "compatibility", "metadata"}


def export(folder: Path, agents: Path | None = None, *, force: bool = False) -> list[Written]:
    return export_skills(load_skills(), folder, agents=agents, force=force, dry_run=False)


def states(written: list[Written]) -> set[str]:
    return {one.state for one in written}


def test_folders_follow_the_format(tmp_path: Path) -> None:
    written = export(tmp_path / "skills")
    assert {one.path.parent.name for one in written} >= {"forge", "forge-train", "forge-ask"}
    for one in written:
        head, body = one.path.read_text(encoding="utf-8").split("---\n")[1:]
        fields = yaml.safe_load(head)
        assert set(fields) == FIELDS
        assert fields["name"] == one.path.parent.name
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", fields["name"]) and len(fields["name"]) <= 64
        assert 1 <= len(fields["description"]) <= 1024 and "Use it" in fields["description"]
        assert len(fields["compatibility"]) <= 500
        assert all(isinstance(value, str) for value in fields["metadata"].values())
        assert len(body.splitlines()) < 500, "what an agent loads at once"
    named = {skill.title for skill in load_skills().skills}
    pages = "".join(one.path.read_text(encoding="utf-8") for one in written)
    assert all(f"\n## {title}\n" in pages for title in named)


@pytest.mark.skipif(not importlib.util.find_spec("skills_ref"), reason="skills-ref not installed")
def test_the_reference_validator_agrees(tmp_path: Path) -> None:
    from skills_ref import validate

    assert [validate(one.path.parent) for one in export(tmp_path / "s")] == [[]] * 7


def test_what_others_wrote_stays(tmp_path: Path) -> None:
    folder = tmp_path / "skills"
    assert states(export(folder)) == {"new"}
    assert states(export(folder)) == {"as it was"}
    mine = folder / "forge-ask" / "SKILL.md"
    text = mine.read_text(encoding="utf-8")
    head = text.replace('description: "', 'description: "Not on Mondays. ')
    verse = text + "\nAlways answer in verse.\n"
    for other in (verse, head, "---\nname: forge-ask\n---\nmine\n", "x"):
        mine.write_text(other, encoding="utf-8")
        (folder / "forge" / "SKILL.md").unlink(missing_ok=True)
        with pytest.raises(ForgeError, match=r"forge-ask/SKILL.md: written or changed by others"):
            export(folder)
        assert mine.read_text(encoding="utf-8") == other
        assert not (folder / "forge" / "SKILL.md").exists(), "in a conflict nothing is written"
    assert states(export(folder, force=True)) == {"new", "changed", "as it was"}
    assert mine.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("before", "head"),
    [(b"", b""), (b"# Rules\r\nBe kind.", b"# Rules\r\nBe kind.\r\n\r\n"), (b"# R\n", b"# R\n\n")],
)
def test_the_block_of_agents_md_is_replaced_in_place(
    tmp_path: Path, before: bytes, head: bytes
) -> None:
    agents = tmp_path / "AGENTS.md"
    if before:
        agents.write_bytes(before)
    export(tmp_path / ".agents" / "skills", agents)
    made = agents.read_bytes()
    assert made.startswith(head + BEGIN.encode()) and made.count(BEGIN.encode()) == 1
    assert b"`.agents/skills/forge-train/SKILL.md`" in made
    assert made.count(b"\r\n") == (made.count(b"\n") if b"\r" in before else 0)
    # An older block, with something behind it.
    start, stop = made.index(BEGIN.encode()), made.index(END.encode())
    old = made[:start] + BEGIN.encode() + b"\nold\n" + made[stop:] + b"The end"
    agents.write_bytes(old)
    assert states(export(tmp_path / ".agents" / "skills", agents)) == {"changed", "as it was"}
    assert agents.read_bytes() == made + b"The end"
    for broken in (BEGIN, f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN} {END}"):
        agents.write_text(broken)
        with pytest.raises(UsageError, match="not one pair"):
            export(tmp_path / "s", agents)
        assert agents.read_text() == broken


def test_the_command(tmp_path: Path) -> None:
    forge = [sys.executable, "-m", "forge_cli", "skills"]
    told = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True}
    dry = subprocess.run([*forge, "export", "--dry-run"], **told)  # type: ignore[call-overload]
    assert ".agents/skills/forge/SKILL.md: new" in dry.stderr and not list(tmp_path.iterdir())
    shown = subprocess.run([*forge, "show", "train", "--json"], **told)  # type: ignore[call-overload]
    assert json.loads(shown.stdout)["effects"] == "writes"
    wrong = subprocess.run([*forge, "show", "trian"], **{**told, "check": False})  # type: ignore[call-overload]
    assert wrong.returncode == 2 and "did you mean train?" in wrong.stderr
