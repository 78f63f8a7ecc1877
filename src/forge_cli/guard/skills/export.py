"""Writes SKILL.md folders and the block of AGENTS.md; what others wrote stays as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.jsonl import atomic_file
from forge_cli.guard.skills.page import DIGEST, WRITER, agents_block, digest_of, skill_page
from forge_cli.guard.skills.skill import Skills

BEGIN, END = "<!-- forge skills: begin -->", "<!-- forge skills: end -->"
_HEAD = re.compile(r"\A---\n(.*?)\n---\n\n?(.*)\Z", re.DOTALL)


@dataclass(frozen=True)
class Written:
    """A file, and what became of it."""

    path: Path
    state: Literal["new", "changed", "as it was"]


def export_skills(
    skills: Skills, folder: Path, *, agents: Path | None, force: bool, dry_run: bool
) -> list[Written]:
    """Write what is not there yet in that form; all of it, or in a conflict nothing.

    Args:
        folder: gets one folder for each of `skills.folders`.
        agents: an AGENTS.md, whose block between the markers is replaced, else added at its end.
        force: also SKILL.md files that were written or changed by others.

    Raises:
        ForgeError: one of the files is not Forge's own, or cannot be read or written.
        UsageError: the markers in `agents` are not one pair.
    """
    texts = {folder / one.name / "SKILL.md": skill_page(one, skills) for one in skills.folders}
    before = {path: _read(path) for path in texts}
    foreign = [str(path) for path, text in before.items() if text and not _own(text)]
    if foreign and not force:
        raise ForgeError(
            f"{', '.join(foreign)}: written or changed by others",
            "move it away or give another --to; --force overwrites it",
        )
    if agents is not None:
        before[agents] = _read(agents)
        shown = folder if not folder.is_absolute() else _near(folder, agents.absolute().parent)
        texts[agents] = _with_block(before[agents], agents_block(skills, shown.as_posix()), agents)
    return list(_write(texts, before, dry_run))


def _near(folder: Path, start: Path) -> Path:
    return folder.relative_to(start) if folder.is_relative_to(start) else folder


def _write(texts: dict[Path, str], before: dict[Path, str], dry_run: bool) -> Iterator[Written]:
    for path, text in texts.items():
        if before[path] == text:
            yield Written(path, "as it was")
            continue
        if not dry_run:
            with atomic_file(path) as stream:
                stream.write(text.encode())
        yield Written(path, "changed" if before[path] else "new")


def _read(path: Path) -> str:
    try:
        # Bytes, so that another's line ends stay what they are.
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ForgeError(f"{path}: cannot be read: {error}", "move it away") from None


def _own(text: str) -> bool:
    """Whether Forge wrote it, and nobody changed it since."""
    found = _HEAD.match(text)
    if not found:
        return False
    try:
        told = yaml.safe_load(found[1])["metadata"]
        head, _, digest = found[1].rpartition(f"\n{DIGEST}")
        return told["written-by"] == WRITER and digest == f'"{digest_of(head, found[2])}"'
    except (yaml.YAMLError, TypeError, KeyError):
        return False


def _with_block(text: str, block: str, path: Path) -> str:
    line = "\r\n" if "\r\n" in text else "\n"
    block = f"{BEGIN}\n{block}{END}".replace("\n", line)
    begins, ends = text.count(BEGIN), text.count(END)
    if (begins, ends) == (0, 0):
        gap = "" if not text else line if text.endswith("\n") else line * 2
        return f"{text}{gap}{block}{line}"
    start, stop = text.find(BEGIN), text.find(END)
    if (begins, ends) != (1, 1) or stop < start:
        raise UsageError(
            f"{path}: the markers of Forge's block are not one pair",
            f"leave one {BEGIN} and after it one {END}, or neither",
        )
    return text[:start] + block + text[stop + len(END) :]
