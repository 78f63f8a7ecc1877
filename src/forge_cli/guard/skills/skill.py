"""The form of skills.yaml, checked strictly when it is read."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forge_cli.core.errors import ForgeError
from forge_cli.guard.skills.command import arguments_of

FILE = Path(__file__).parents[1] / "skills.yaml"

Schema = dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cost(_Strict):
    """What a skill takes: the order of time, and whether of the accelerator."""

    time: Literal["seconds", "minutes", "hours"]
    accelerator: bool


class Case(_Strict):
    """What a user may say, and the arguments that it asks for."""

    say: str
    arguments: dict[str, Any]


class Folder(_Strict):
    """A SKILL.md: several skills that one task needs. Limits are those of agentskills.io."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)
    title: str
    description: str = Field(min_length=1, max_length=1024)
    body: str


class Skill(_Strict):
    """One thing that an agent can do; the fields are explained at the head of skills.yaml."""

    name: str = Field(pattern=r"^[a-z]+(_[a-z]+)*$", max_length=64)
    title: str
    folder: str
    description: str = Field(min_length=1, max_length=1024)
    command: str
    preview: str | None = None
    result: Literal["json", "run", "file", "text"]
    effects: Literal["reads", "writes", "serves"]
    cost: Cost
    long: bool = False
    confirm: bool = False
    destructive: bool = False
    idempotent: bool = False
    open_world: bool = False
    paths: dict[str, Literal["read", "write"]] = Field(default_factory=dict)
    models: list[str] = Field(default_factory=list)
    input: Schema
    output: Schema
    examples: list[Case] = Field(min_length=1)

    @model_validator(mode="after")
    def _agrees(self) -> Skill:
        known = set(self.input.get("properties", {}))
        used = arguments_of(self.command)
        if set(used) != known:
            raise ValueError(f"command has {sorted(used)}, input has {sorted(known)}")
        for told in (arguments_of(self.preview or "forge"), self.paths, self.models):
            if unknown := set(told) - known:
                raise ValueError(f"not arguments: {sorted(unknown)}")
        if self.confirm != (self.preview is not None):
            raise ValueError("confirm and preview belong together")
        if self.confirm and not self.long:
            raise ValueError("what asks for confirmation is started as a task: long")
        if self.effects == "reads" and (self.confirm or self.destructive):
            raise ValueError("what only reads needs no confirmation and destroys nothing")
        if self.input.get("additionalProperties") is not False:
            raise ValueError("input must refuse arguments that it does not name")
        return self


class Skills(_Strict):
    """All of them, with the folders that they are exported in."""

    version: Literal[1]
    folders: list[Folder]
    skills: list[Skill]

    @model_validator(mode="after")
    def _whole(self) -> Skills:
        for kind in (self.folders, self.skills):
            names = [one.name for one in kind]
            if len(set(names)) != len(names):
                raise ValueError(f"a name twice in {names}")
        if {skill.folder for skill in self.skills} != {folder.name for folder in self.folders}:
            raise ValueError("each skill needs a folder that is there, and each folder a skill")
        return self

    def find(self, name: str) -> Skill | None:
        """The skill of that name."""
        return next((skill for skill in self.skills if skill.name == name), None)


def read_skills(text: str) -> Skills:
    """Skills from YAML.

    Raises:
        ForgeError: it is not YAML, or not of the form; the first fault is named.
    """
    try:
        return Skills.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ForgeError(f"skills.yaml: {error}", "mend that line") from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise ForgeError(f"skills.yaml: {where}: {fault['msg']}", "see the head of it") from None


@functools.cache
def load_skills() -> Skills:
    """The skills that Forge ships."""
    return read_skills(FILE.read_text(encoding="utf-8"))
