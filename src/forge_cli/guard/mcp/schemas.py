"""Skills as MCP tools: their schemas, and those of the tools that look after tasks."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from forge_cli.guard.skills import Skill, Skills

if TYPE_CHECKING:
    from mcp_types import Tool

MOST_WAIT = 50  # seconds: clients give up on a call after 60
WAIT = 20

_TASK_NAME = {"type": "string", "description": "A task's name, such as train-1."}
_TEXT = {"type": "string"}
TASK: dict[str, Any] = {
    "type": "object",
    "properties": {
        "state": {"enum": ["running", "done", "failed", "cancelled"]},
        "task": _TASK_NAME,
        "tool": _TEXT,
        "command": {"type": "string", "description": "The command line that runs."},
        "seconds": {"type": "number"},
        "progress": {
            "type": ["object", "null"],
            "properties": {
                "stage": _TEXT,
                "done": {"type": "integer"},
                "total": {"type": ["integer", "null"]},
                "detail": _TEXT,
            },
        },
        "log": {"type": "array", "items": _TEXT, "description": "The last lines."},
        "process_group": {"type": ["integer", "null"]},
        "result": {"type": "object", "description": "What it left behind, if it is done."},
        "error": {"type": "object", "properties": {"message": _TEXT, "hint": _TEXT}},
        "next": {"type": "string", "description": "What to do now."},
    },
    "required": ["state", "task", "tool", "next"],
}
CONFIRMATION: dict[str, Any] = {
    "type": "object",
    "description": "Nothing was done yet: show it to the user, and ask.",
    "properties": {
        "token": {"type": "string", "description": "For the same call again: confirmation."},
        "would_run": _TEXT,
        "effects": _TEXT,
        "cost": _TEXT,
        "notes": {"type": "array", "items": _TEXT, "description": "What the dry run said."},
        "plan": {"description": "What the dry run printed."},
        "valid_seconds": {"type": "number"},
    },
    "required": ["token", "would_run", "effects", "cost", "notes", "valid_seconds"],
}


def tool_name(skill: Skill) -> str:
    """A skill's tool: long ones are started."""
    return f"{skill.name}_start" if skill.long else skill.name


def default_wait(skill: Skill) -> float:
    """Seconds that a start waits by itself: of what takes hours the name comes at once."""
    return 0 if skill.cost.time == "hours" else WAIT


def input_of(skill: Skill) -> dict[str, Any]:
    """The input schema of a skill's tool."""
    schema = copy.deepcopy(skill.input)
    if skill.long:
        schema["properties"]["wait_seconds"] = _wait(default_wait(skill))
    if skill.confirm:
        schema["properties"]["confirmation"] = {
            "type": "string",
            "description": "The token of an earlier call with these very arguments.",
        }
    return schema


def _wait(default: float) -> dict[str, Any]:
    return {
        "type": "number", "minimum": 0, "maximum": MOST_WAIT, "default": default,
        "description": "Seconds to wait for the end before answering.",
    }  # fmt: skip


def output_of(skill: Skill) -> dict[str, Any]:
    """The output schema of a skill's tool."""
    if not skill.long:
        return skill.output
    schema = copy.deepcopy(TASK)
    schema["properties"]["result"] = copy.deepcopy(skill.output)
    if skill.confirm:
        schema["properties"]["state"]["enum"].insert(0, "needs confirmation")
        schema["properties"]["confirmation"] = CONFIRMATION
        schema["required"] = ["state", "tool", "next"]
    return schema


def _description(skill: Skill) -> str:
    parts = [skill.description]
    if skill.confirm:
        parts.append(
            "The first call does nothing but say what would be done, with a token; the same call "
            "with the token as `confirmation` does it."
        )
    if skill.long:
        parts.append("Returns a task: follow it with task_status, end it with task_cancel.")
    examples = "; ".join(f"{case.say!r}: {case.arguments}" for case in skill.examples)
    parts.append(f"Takes {skill.cost.time}. Examples: {examples}")
    return " ".join(parts)


def tools_of(skills: Skills, *, allow_write: bool) -> list[Tool]:
    """Every tool that is listed."""
    from mcp_types import Tool, ToolAnnotations

    listed = [skill for skill in skills.skills if allow_write or skill.effects == "reads"]
    found = [
        Tool(
            name=tool_name(skill),
            title=skill.title,
            description=_description(skill),
            input_schema=input_of(skill),
            output_schema=output_of(skill),
            annotations=ToolAnnotations(
                title=skill.title,
                read_only_hint=skill.effects == "reads",
                destructive_hint=skill.destructive,
                idempotent_hint=skill.idempotent or skill.effects == "reads",
                open_world_hint=skill.open_world,
            ),
        )
        for skill in listed
    ]
    return found + _task_tools()


def _task_tools() -> list[Tool]:
    from mcp_types import Tool, ToolAnnotations

    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    ends = ToolAnnotations(
        read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    one = {"task": _TASK_NAME}
    lines = {"type": "integer", "minimum": 0, "maximum": 400, "default": 20,
             "description": "Of log."}  # fmt: skip
    listing = {"type": "object", "properties": {"items": {"type": "array", "items": TASK}},
               "required": ["items"]}  # fmt: skip
    rows: list[tuple[str, str, str, dict[str, Any], list[str], dict[str, Any], Any]] = [
        ("task_status", "How far a task is",
         "State, progress and last lines of a task; waits for its end up to wait_seconds.",
         {**one, "wait_seconds": _wait(0), "lines": lines}, ["task"], TASK, reads),
        ("task_result", "What a task left behind",
         "The result of a task that is done; an error that says why if it failed or still runs.",
         one, ["task"], {"type": "object"}, reads),
        ("task_cancel", "End a task",
         "Interrupts a task as Ctrl-C does: it writes its checkpoint; its run stays resumable.",
         one, ["task"], TASK, ends),
        ("task_list", "All tasks", "The tasks of this session.", {}, [], listing, reads),
    ]  # fmt: skip
    return [
        Tool(
            name=name,
            title=title,
            description=description,
            input_schema={
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            },
            output_schema=output,
            annotations=annotations,
        )
        for name, title, description, properties, required, output, annotations in rows
    ]
