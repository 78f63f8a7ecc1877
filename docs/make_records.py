"""Print docs/records.md from core/records.py; a test fails when the file has drifted."""

from __future__ import annotations

from typing import get_args

from forge_cli.core.records import AnyRecord, Record


def page() -> str:
    """The whole page."""
    union = get_args(AnyRecord)[0]
    lines = [
        "# Records",
        "",
        "One JSON object per line, UTF-8. Unknown fields are errors.",
        "Made by `python docs/make_records.py > docs/records.md`.",
    ]
    for record in get_args(union):
        lines += ["", *_section(record)]
    return "\n".join(lines) + "\n"


def _section(record: type[Record]) -> list[str]:
    lines = [f"## {record.__name__.lower()}", "", str(record.__doc__).strip(), ""]
    lines += ["| field | type | |", "|---|---|---|"]
    for name, field in record.model_fields.items():
        kind = str(field.annotation)
        if isinstance(field.annotation, type) and "[" not in kind:
            kind = field.annotation.__name__
        kind = kind.replace("typing.", "").replace("forge_cli.core.records.", "")
        default = field.get_default(call_default_factory=True)
        need = "" if field.is_required() else f"default {default!r}"
        text = "; ".join(part for part in (field.description or "", need) if part)
        lines.append(f"| `{name}` | `{kind.replace('|', 'or')}` | {text.replace('|', 'or')} |")
    return lines


if __name__ == "__main__":
    print(page(), end="")
