"""guard.yaml as a newcomer gets it, and its table of settings: both made from `config.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from forge_cli.guard.config import GuardConfig, Repository

_HEAD = """\
# What forge guard watches, when it retrains and what is good enough to be deployed.
# Every setting is here with its default; what you leave out is as it is here.
# See docs/guard.md; forge guard status says what the rules make of it now.
"""


@dataclass(frozen=True)
class Setting:
    """One setting: its section ("": none), its default as YAML ("": it must be given)."""

    section: str
    name: str
    default: str
    text: str


def settings() -> Iterator[Setting]:
    """Each setting of guard.yaml, in the order of the file."""
    for name, field in GuardConfig.model_fields.items():
        model = Repository if name == "repositories" else field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            for key, inner in model.model_fields.items():
                yield Setting(name, key, _default(inner), _described(inner))
        else:
            yield Setting("", name, _default(field), _described(field))


def title_of(section: str) -> str:
    """What a section is for; "" where there is none."""
    field = GuardConfig.model_fields.get(section)
    model = Repository if section == "repositories" else field and field.annotation
    return str(model.__doc__).splitlines()[0] if isinstance(model, type) else ""


def commented() -> str:
    """The file, which guards its own folder."""
    lines, current = [_HEAD], ""
    for one in settings():
        if one.section != current and one.section:
            lines += [f"# {title_of(one.section)}", f"{one.section}:"]
        listed = one.section == "repositories"
        first = listed and one.section != current
        current = one.section
        indent = "" if not one.section else "    " if listed else "  "
        default = one.default or "."
        lines.append(f"{indent}# {one.text}")
        start = "  - " if first else indent
        lines.append(f"{start}{one.name}: {default}")
    return "\n".join(lines) + "\n"


def table() -> str:
    """The settings as a table in Markdown."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for one in settings():
        name = ".".join(part for part in (one.section, one.name) if part)
        name = name.replace("repositories.", "repositories[].")
        default = f"`{one.default}`" if one.default else "must be given"
        lines.append(f"| `{name}` | {default} | {one.text.replace('|', 'or')} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value: Any = field.get_default(call_default_factory=True)
    return yaml.safe_dump(value, default_flow_style=True, width=1000).partition("\n")[0]


def _described(field: FieldInfo) -> str:
    text = field.description or ""
    for kind in (field.annotation, *get_args(field.annotation)):
        if get_origin(kind) is Literal:
            values = [str(value) for value in get_args(kind)]
            unnamed = [value for value in values if value not in text]
            text += f" ({' or '.join(values)})" if unnamed else ""
    return text
