"""Suites as data: what is asked of which sides, and what counts. Users add files of their own."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forge_cli.core.config import Condition
from forge_cli.core.errors import UsageError
from forge_cli.evaluate.statistics.verdict import Rules

_OWN = Path(__file__).parent


class Suite(BaseModel):
    """What decides whether a model is better."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    conditions: list[Condition] = Field(
        ["given", "reworded", "unseen", "oracle", "distractors", "closed_book", "retrieved"],
        description="what is asked, and what is shown with it",
    )
    against: str = Field("base+examples", description="the side that is to be beaten")
    side: str = Field("tuned", description="the side that is to beat it")
    rules: Rules


def read_suite(name: str) -> Suite:
    """The suite of a name, or in a file.

    Raises:
        UsageError: there is no such suite, or the file is not one.
    """
    file = _OWN / f"{name}.yaml" if name.replace("-", "_").isidentifier() else Path(name)
    if not file.is_file():
        known = ", ".join(sorted(found.stem for found in _OWN.glob("*.yaml")))
        raise UsageError(f"suite {name}: not found", f"known: {known}; or give a .yaml file")
    try:
        return Suite.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{file}:{line}: not YAML", "see forge_cli/evaluate/suites") from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise UsageError(f"{file}: {where}: {fault['msg']}", f"it needs: {_keys()}") from None


def _keys() -> str:
    return ", ".join(Suite.model_fields)
