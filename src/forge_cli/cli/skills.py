"""`forge skills`: what an agent can do with Forge, to look at and to give to agents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from forge_cli.cli._options import Json, Quiet, Verbose
from forge_cli.cli._output import Output
from forge_cli.core.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    help="What an agent can do with Forge.\n\nExample: forge skills export",
)


@app.command("ls")
def ls(json_lines: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """List the skills, one a line: name, effects, cost, title; with --json all in one array.

    Example: forge skills ls
    """
    from forge_cli.guard.skills import load_skills

    found = load_skills().skills
    if json_lines:
        print(json.dumps([skill.model_dump(mode="json") for skill in found], ensure_ascii=False))
    for skill in found if not json_lines else ():
        print(f"{skill.name}\t{skill.effects}\t{skill.cost.time}\t{skill.title}")
    Output(json_lines=json_lines, quiet=quiet).next("forge skills show NAME")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Skill.")],
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show a skill: when to use it, its command, the schemas of its input and output.

    Example: forge skills show train
    """
    import difflib

    import yaml

    from forge_cli.guard.skills import load_skills

    skills = load_skills()
    found = skills.find(name)
    if found is None:
        names = [skill.name for skill in skills.skills]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
        raise UsageError(f"{name}: no such skill", hint)
    told = found.model_dump(mode="json", exclude_defaults=True)
    if json_lines:
        print(json.dumps(told, ensure_ascii=False))
    else:
        print(yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=100), end="")
    Output(json_lines=json_lines, quiet=quiet).next("forge skills export")


@app.command("export")
def export(
    to: Annotated[Path, typer.Option(help="Folder for the folders of SKILL.md.")] = Path(
        ".agents/skills"
    ),
    agents_md: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also a block in this AGENTS.md.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a SKILL.md that others wrote or changed.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written, write nothing.")
    ] = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the skills as SKILL.md folders, which agents find by themselves.

    Example: forge skills export --agents-md AGENTS.md
    """
    from forge_cli.guard.skills import load_skills
    from forge_cli.guard.skills.export import export_skills

    output = Output(json_lines=json_lines, quiet=quiet)
    written = export_skills(load_skills(), to, agents=agents_md, force=force, dry_run=dry_run)
    for one in written:
        output.note(f"{one.path}: {one.state}")
    if json_lines:
        print(json.dumps([{"path": str(one.path), "state": one.state} for one in written]))
    output.next("the same command without --dry-run" if dry_run else "forge mcp --help")
