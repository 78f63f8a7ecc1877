"""What happens when a tool is called. Knows nothing of the protocol."""

from __future__ import annotations

import shlex
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from forge_cli.core.errors import UsageError
from forge_cli.guard.mcp.confirmations import SECONDS, Confirmations
from forge_cli.guard.mcp.results import read_json
from forge_cli.guard.mcp.roots import Roots
from forge_cli.guard.mcp.schemas import default_wait, tool_name, tools_of
from forge_cli.guard.mcp.tasks import Command, Task, Tasks
from forge_cli.guard.skills import Skill, Skills
from forge_cli.guard.skills.command import fill

# Progress to the client: done, total, words.
Report = Callable[[float, float | None, str], Awaitable[None]]

_PREVIEW = 45.0  # seconds; a client gives up on a call after 60
_LOOK = 0.05  # seconds between looks at a command
_TOLD = 200  # characters of what is wrong with an argument
_SHOWN = 20  # elements of a list in a plan


class Calls:
    """The tools of one server, and what they share: tasks, tokens, roots."""

    def __init__(self, skills: Skills, roots: Roots, *, allow_write: bool) -> None:
        self.tools = tools_of(skills, allow_write=allow_write)
        self.roots = roots
        self.tasks = Tasks(roots.first)
        self.confirmations = Confirmations()
        self._skills = {tool_name(skill): skill for skill in skills.skills}
        self._schemas = {tool.name: tool.input_schema for tool in self.tools}

    async def call(self, name: str, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
        """The structured result of a tool.

        Raises:
            ForgeError: what went wrong, and what to do next.
        """
        self.confirmations.count()
        if name not in self._schemas:
            if name in self._skills:
                raise UsageError(
                    f"{name}: this server only reads", "the user may start: forge mcp --allow-write"
                )
            raise UsageError(f"{name}: no such tool", f"there are: {', '.join(self._schemas)}")
        check(arguments, self._schemas[name])
        if name in self._skills:
            return await self._skill(self._skills[name], arguments, report)
        return await self._task(name, arguments, report)

    async def _skill(
        self, skill: Skill, arguments: dict[str, Any], report: Report
    ) -> dict[str, Any]:
        wait = float(arguments.pop("wait_seconds", default_wait(skill)))
        token = arguments.pop("confirmation", None)
        resolved = self.roots.resolve(skill, arguments)
        if skill.confirm and token is None:
            return await self._ask(skill, resolved)
        if skill.confirm:
            self.tasks.check_room(skill)  # before the token is used up
            self.confirmations.redeem(token, skill.name, resolved)
        task = self.tasks.start(skill, resolved)
        if not skill.long:
            try:
                await _until_over(task, float("inf"), report)
            finally:
                task.cancel()  # the client may have taken its call back
            return task.result()
        await _until_over(task, wait, report)
        if task.state() in ("failed", "cancelled"):
            task.result()  # raises what it said
        return task.status(lines=20)

    async def _ask(self, skill: Skill, resolved: dict[str, Any]) -> dict[str, Any]:
        """What a call would do, with a token to do it."""
        assert skill.preview
        command = Command(fill(skill.preview, resolved), folder=self.roots.first, nice=0)
        until = time.monotonic() + _PREVIEW
        try:
            while (code := command.exit_code()) is None and time.monotonic() < until:
                await anyio.sleep(_LOOK)
        finally:
            command.interrupt()
        if code:
            raise command.failure(code)
        notes = command.told.notes()
        if code is None:
            notes.append(f"the dry run was not over after {_PREVIEW:.0f} s and was ended")
        words = ["forge", *fill(skill.command, resolved)]
        told: dict[str, Any] = {
            "token": self.confirmations.issue(skill.name, resolved),
            "would_run": shlex.join(words),
            "effects": {"serves": "changes what is served"}.get(skill.effects, "writes files"),
            "cost": skill.cost.time + (" of the accelerator" if skill.cost.accelerator else ""),
            "notes": notes,
            "valid_seconds": SECONDS,
        }
        if plan := _plan(command.stdout()):
            told["plan"] = plan
        return {
            "state": "needs confirmation",
            "tool": skill.name,
            "confirmation": told,
            "next": "show it to the user; if they agree, the same call with the token",
        }

    async def _task(self, name: str, arguments: dict[str, Any], report: Report) -> dict[str, Any]:
        if name == "task_list":
            return {"items": [task.status(lines=0) for task in self.tasks.all()]}
        task = self.tasks.find(arguments["task"])
        if name == "task_result":
            return task.result()
        if name == "task_cancel":
            task.cancel()
            await _until_over(task, 20, report)
        else:
            await _until_over(task, float(arguments.get("wait_seconds", 0)), report)
        return task.status(lines=int(arguments.get("lines", 20)))


async def _until_over(task: Task, seconds: float, report: Report) -> None:
    until = time.monotonic() + seconds
    said = None
    while task.state() == "running" and time.monotonic() < until:
        progress = task.command.told.progress()
        if progress and progress != said:
            said = progress
            words = f"{progress['stage']} {progress['detail']}".strip()
            await report(progress["done"], progress["total"], words)
        await anyio.sleep(_LOOK)


def _plan(stdout: str) -> Any:
    """What a dry run printed, in short; of a run record what it says of the deployment."""
    try:
        found = read_json(stdout)
    except ValueError:
        return None
    runs = [one for one in found if isinstance(one, dict) and one.get("record") == "run"]
    return _short(runs[0]["metrics"].get("deploy") if runs else found)


def _short(value: Any) -> Any:
    """The value, of long lists their beginning."""
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    if not isinstance(value, list):
        return value
    more = [f"… and {len(value) - _SHOWN} more"] if len(value) > _SHOWN else []
    return [*map(_short, value[:_SHOWN]), *more]


def check(arguments: dict[str, Any], schema: dict[str, Any]) -> None:
    """Refuse arguments that are not of the schema.

    Raises:
        UsageError: the first fault, where it is.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    for name, value in arguments.items():
        if any("\0" in str(one) for one in (value if isinstance(value, list) else [value])):
            raise UsageError(
                f"{name}: holds a NUL character", "no command can take it; leave it out"
            )
    fault = best_match(Draft202012Validator(schema).iter_errors(arguments))
    if fault is not None:
        where = ".".join(map(str, fault.absolute_path)) or "arguments"
        known = ", ".join(schema["properties"]) or "none"
        told = fault.message if len(fault.message) < _TOLD else f"… {fault.message[-_TOLD:]}"
        raise UsageError(f"{where}: {told}", f"the arguments are: {known}")
