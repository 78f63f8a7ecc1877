"""A skill folder's SKILL.md, and the block for AGENTS.md, as text.

The format is that of agentskills.io: YAML frontmatter of name, description, license, compatibility
and metadata (strings to strings), then Markdown.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from typing import Any

from forge_cli.guard.skills.command import fill, parse, usage
from forge_cli.guard.skills.skill import Folder, Skill, Skills

DIGEST = "  sha256: "  # the last line of the head
WRITER = "forge skills export"
COMPATIBILITY = "Needs the command forge (forge-cli), on macOS (Apple Silicon) or Linux x86-64."


def digest_of(head: str, body: str) -> str:
    """16 hex digits of a SKILL.md without its own line, by which later changes are seen."""
    return hashlib.sha256(f"{head}\n{body}".encode()).hexdigest()[:16]


def skill_page(folder: Folder, skills: Skills) -> str:
    """The whole SKILL.md of a folder."""
    own = [skill for skill in skills.skills if skill.folder == folder.name]
    parts = [f"# {folder.title}", folder.body.strip(), *map(_section, own)]
    body = "\n\n".join(parts) + "\n"
    fields: dict[str, Any] = {
        "name": folder.name,
        "description": folder.description,
        "license": "Apache-2.0",
        "compatibility": COMPATIBILITY,
    }
    # JSON strings are YAML strings, whatever is in them.
    head = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    head += ["metadata:", f"  written-by: {json.dumps(WRITER)}"]
    head += [f"{DIGEST}{json.dumps(digest_of(chr(10).join(head), body))}"]
    return "\n".join(["---", *head, "---", "", body])


def _section(skill: Skill) -> str:
    effects = {
        "reads": "only reads",
        "writes": "writes files",
        "serves": "changes what is served: ask the user first",
    }[skill.effects]
    time = f"takes {skill.cost.time}" + (" of the accelerator" if skill.cost.accelerator else "")
    asks = "" if skill.effects == "serves" or not skill.confirm else "; ask the user first"
    parts = [
        f"## {skill.title}",
        skill.description,
        f"    {usage(skill.command)}",
        f"It {effects}, and {time}{asks}. It prints {_printed(skill)}",
    ]
    if skill.preview:
        parts.append(f"What it would do, without doing it:\n\n    {usage(skill.preview)}")
    if rows := [_argument(skill, name) for name in skill.input["properties"]]:
        parts.append("\n".join(["| argument | is |", "|---|---|", *rows]))
    for case in skill.examples:
        line = shlex.join(["forge", *fill(skill.command, case.arguments)])
        parts.append(f"“{case.say}”\n\n    {line}")
    return "\n\n".join(parts)


def _argument(skill: Skill, name: str) -> str:
    schema = skill.input["properties"][name]
    part = next(part for part in parse(skill.command) if part.name == name)
    options = [word.split("=")[0] for word in part.words if word.startswith("--")]
    shown = f"`{options[-1]}`" if options else f"`{name.upper()}`"
    told = [schema["description"]] if "description" in schema else []
    items = schema.get("items", schema)
    if "enum" in items:
        told.append(f"One of: {', '.join(items['enum'])}.")
    if part.repeated:
        told.append("Repeatable.")
    if name in skill.input.get("required", []):
        told.append("Needed.")
    return f"| {shown} | {' '.join(told).replace('|', chr(92) + '|')} |"


def _printed(skill: Skill) -> str:
    fields = ", ".join(f"`{name}`" for name in skill.output["properties"] if name != "notes")
    if skill.result == "run":
        return f"one JSON line, the run record: {fields}."
    if skill.result == "file":
        return "nothing on stdout; the result is the file."
    if skill.result == "text":
        return "text."
    items = skill.output["properties"].get("items")
    if items:
        fields = ", ".join(f"`{name}`" for name in items["items"]["properties"])
        return f"JSON, for each one: {fields}."
    return f"JSON{': ' + fields if fields else ''}."


def agents_block(skills: Skills, folder: str) -> str:
    """What AGENTS.md says, without its markers; `folder` is where the SKILL.md folders are."""
    lines = [
        "## Forge",
        "",
        "Forge fine-tunes a local model on this repository and answers questions about it with",
        "verbatim quotes. Skills, each to be read before its task:",
        "",
        *[f"- `{folder}/{one.name}/SKILL.md`: {one.title}" for one in skills.folders],
        "",
        "Ask the user before `forge train` (long) and `forge deploy` (changes what is served);",
        "`--dry-run` of either shows what it would do. `forge mcp` offers the same as MCP tools.",
    ]
    return "\n".join(lines) + "\n"
