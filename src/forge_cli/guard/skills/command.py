"""The command line that a skill stands for, written as a template.

    forge eval --json [--suite={suites}]... [--fresh {fresh?}] {run}

{name} is an argument; a group in brackets is left out where its argument is not given, and with
`...` repeated for each of a list; {name?} stands for nothing itself. Values of options are joined
to them by "=", so that no value can be taken for an option.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PART = re.compile(r"\[(?P<group>[^\]]+)\](?P<more>\.\.\.)?|(?P<word>[^\s\[\]]+)")
_NAME = re.compile(r"\{(\w+)(\?)?\}")


@dataclass(frozen=True)
class Part:
    """Words that stand or fall together.

    Attributes:
        words: with {name} in them. name: of the argument, if there is one.
        optional: left out where it is not given. repeated: once for each of a list.
        switch: the argument only says whether they are there.
    """

    words: tuple[str, ...]
    name: str | None
    optional: bool
    repeated: bool
    switch: bool


def parse(template: str) -> list[Part]:
    """The parts of a template, without the `forge` at its head.

    Raises:
        ValueError: it does not begin with forge, or a group has not one argument.
    """
    head, _, rest = template.partition(" ")
    if head != "forge":
        raise ValueError(f"{template!r}: does not begin with forge")
    parts = []
    for found in _PART.finditer(rest):
        words = (found["group"] or found["word"]).split()
        names = _NAME.findall(" ".join(words))
        if len(names) > 1 or (found["group"] and not names):
            raise ValueError(f"{found[0]!r}: needs one argument")
        name, switch = names[0] if names else (None, "")
        kept = tuple(word for word in words if not word.endswith("?}"))
        parts.append(Part(kept, name, bool(found["group"]), bool(found["more"]), bool(switch)))
    return parts


def arguments_of(template: str) -> list[str]:
    """Names of the arguments in a template, in order."""
    return [part.name for part in parse(template) if part.name]


def fill(template: str, values: Mapping[str, Any]) -> list[str]:
    """The words after `forge`, with `values` in place."""
    line: list[str] = []
    for part in parse(template):
        if part.name is None:
            line += part.words
            continue
        value = values.get(part.name)
        if value is None or (part.switch and not value):
            continue
        for one in value if part.repeated else [value]:
            line += [word.replace(f"{{{part.name}}}", _text(one)) for word in part.words]
    return line


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def options_of(template: str) -> list[str]:
    """The options that a template uses, such as --json."""
    words = [word for part in parse(template) for word in part.words]
    return [word.split("=")[0] for word in words if word.startswith("--") and word != "--"]


def command_of(template: str) -> list[str]:
    """The words before the first option or argument, such as ["guard", "status"]."""
    words: list[str] = []
    for part in parse(template):
        if part.name or part.words[0].startswith("-"):
            break
        words += part.words
    return words


def usage(template: str) -> str:
    """The template for people: {run} is RUN."""
    shown = re.sub(r" \{\w+\?\}", "", template)
    return re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), shown)
