"""skills.yaml against the real command line, and what is read from it."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
import typer

from forge_cli.cli.main import app
from forge_cli.core.errors import ForgeError
from forge_cli.guard.skills import Skill, load_skills
from forge_cli.guard.skills.command import command_of, fill, options_of, parse, usage
from forge_cli.guard.skills.skill import FILE, read_skills

SKILLS = load_skills().skills
FORGE = typer.main.get_command(app)


def leaf(words: list[str]) -> Any:
    """The command that `words` begin with, as Typer has it; None where there is none."""
    found: Any = FORGE
    for word in words:
        found = getattr(found, "commands", {}).get(word)
    return found


def sample(name: str, schema: dict[str, Any]) -> Any:
    """A value of an input's schema."""
    if "enum" in schema:
        return schema["enum"][0]
    texts = {r"\.jsonl$": "x.jsonl", "^[0-9]+(s|m|h)$": "45m"}
    texts["^(verdict is [a-z ]+|[a-z0-9_@.-]+ *[<>=]=? *-?[0-9.]+)$"] = "verdict is better"
    values: dict[str, Any] = {
        "integer": max(3, schema.get("minimum", 0)),
        "number": 0.5,
        "boolean": True,
        "string": texts.get(schema.get("pattern", ""), "abc"),
    }
    if schema["type"] == "array":
        return [sample(name, schema["items"])] * 2
    return values[schema["type"]]


@pytest.mark.parametrize("skill", SKILLS, ids=lambda skill: skill.name)
def test_a_skill_is_a_command_that_is_there(skill: Skill) -> None:
    everything = {name: sample(name, one) for name, one in skill.input["properties"].items()}
    jsonschema.validate(everything, skill.input)
    for template in filter(None, (skill.command, skill.preview)):
        words = command_of(template)
        command = leaf(words)
        if command is None and words == ["ask"]:
            pytest.skip("forge ask is not there yet")
        assert command is not None, f"forge {' '.join(words)}: no such command"
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        assert set(options_of(template)) <= known
        for given in (everything, *(case.arguments for case in skill.examples)):
            line = fill(template, given)
            # Parses it, converts each value, and refuses what is missing or too much.
            context = command.make_context("forge", line[len(words) :])
            assert context.params.get("json_lines", True)


@pytest.mark.parametrize("skill", SKILLS, ids=lambda skill: skill.name)
def test_schemas_and_examples_are_sound(skill: Skill) -> None:
    for schema in (skill.input, skill.output):
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert set(schema.get("required", [])) <= set(schema["properties"])
    for case in skill.examples:
        jsonschema.validate(case.arguments, skill.input)


def test_a_template_is_filled_without_a_way_out() -> None:
    template = "forge x --json [--suite={suites}]... [--fresh {fresh?}] [--side=a --side={b}] {run}"
    given = {"run": "r", "suites": ["x y", "--z"], "fresh": True, "b": "q"}
    assert fill(template, given) == [
        "x", "--json", "--suite=x y", "--suite=--z", "--fresh", "--side=a", "--side=q", "r",
    ]  # fmt: skip
    assert fill(template, {"run": "r", "fresh": False}) == ["x", "--json", "r"]
    assert usage(template).endswith("[--suite=SUITES]... [--fresh] [--side=a --side=B] RUN")
    ask = next(skill for skill in SKILLS if skill.name == "ask")
    assert fill(ask.command, {"repo": "/r", "question": "--help"})[-2:] == ["--", "--help"]
    for bad in ("mine {x}", "forge mine [--x]", "forge mine [{x} {y}]"):
        with pytest.raises(ValueError):
            parse(bad)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("effects: reads", "effects: read", "skills.0.effects"),
        ("cost: {time: seconds", "prize: {time: seconds", "skills.0.cost: Field required"),
        ("[{folder}]", "[{place}]", "command has ['place'], input has ['folder']"),
        ("paths: {run: read}", "paths: {walk: read}", "not arguments: ['walk']"),
        ("    confirm: true\n", "", "confirm and preview belong together"),
        ("name: show_run\n", "name: list_runs\n", "a name twice"),
        ("    folder: forge-ask\n", "    folder: forge\n", "each folder a skill"),
        ("version: 1", "version: [", "skills.yaml: while parsing"),
    ],
)
def test_a_fault_in_the_yaml_is_named(before: str, after: str, said: str) -> None:
    text = FILE.read_text(encoding="utf-8")
    assert before in text
    with pytest.raises(ForgeError, match=re.escape(said)):
        read_skills(text.replace(before, after))
