"""What a command left behind, as the structured result of its skill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.guard.skills import Skill


def result_of(
    skill: Skill, arguments: Mapping[str, Any], stdout: str, notes: list[str]
) -> dict[str, Any]:
    """The result in the form of `skill.output`.

    Raises:
        ForgeError: stdout is not what the command promises.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    found = {**_result(skill, arguments, stdout), "notes": notes}
    # A client would refuse it too, but without a word about what to do.
    if fault := best_match(Draft202012Validator(skill.output).iter_errors(found)):
        where = ".".join(map(str, fault.absolute_path)) or "result"
        raise ForgeError(
            f"{skill.name}: not what it promises: {where}: {fault.message[:200]}",
            "run it by hand to see what it says; this is a fault of Forge itself",
        )
    return found


def _result(skill: Skill, arguments: Mapping[str, Any], stdout: str) -> dict[str, Any]:
    if skill.result == "text":
        return {"text": stdout}
    if skill.result == "file":
        file = Path(arguments["out"])
        with open(file, "rb") as stream:
            records = sum(1 for _ in stream)
        return {"path": str(file), "records": records, "bytes": file.stat().st_size}
    try:
        found = read_json(stdout)
    except ValueError:
        raise ForgeError(
            f"{skill.name}: the command printed no JSON", "run it by hand to see what it says"
        ) from None
    if skill.result == "run":
        run: dict[str, Any] = next((one for one in found if one.get("record") == "run"), {})
        return {key: run[key] for key in ("path", "model", "metrics", "files") if key in run}
    # One object stands for itself, but where the form says that there may be several.
    if len(found) == 1 and isinstance(found[0], dict) and not _lists(skill):
        return dict(found[0])
    return {"items": found}


def _lists(skill: Skill) -> bool:
    return "items" in skill.output["properties"]


def read_json(stdout: str) -> list[Any]:
    """One value, the elements of one array, or a value on each line.

    Raises:
        ValueError: neither.
    """
    try:
        whole = json.loads(stdout)
    except ValueError:
        return [json.loads(line) for line in stdout.splitlines() if line.strip()]
    return whole if isinstance(whole, list) else [whole]
