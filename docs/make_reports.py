"""Print docs/reports.md from what templates are given; a test fails when the file has drifted."""

from __future__ import annotations

import re

from forge_cli.guard.reports import fields
from forge_cli.guard.reports.rendering import FILTERS, PAGES, builtin_source

HEAD = """# Reports of the guardian

Each cycle writes a folder `.forge/guard/reports/ID/`. Every page is one file: HTML without script,
which asks for nothing elsewhere, and Markdown as GitHub shows it.
Made by `python docs/make_reports.py > docs/reports.md`.

{pages}

`pull-request.md` begins with `<!-- forge-guard -->`: a bot finds its comment by it and writes it
anew in place. `release-note.*` is there only if a model was trained.

## Your own templates

`forge guard templates --copy report-templates` writes a file for each page; then say
`templates: report-templates` in `guard.yaml`. A file of that name comes before the builtin one,
and can extend it:

```jinja
{{% extends "builtin/report.md.j2" %}}
{{% block gates %}}
{{{{ super() }}}}
Ask {{{{ repository }}}}'s owners before you go on.
{{% endblock %}}
```

Templates are [Jinja](https://jinja.palletsprojects.com)'s, in its sandbox. What they print is
escaped: text of a repository cannot become markup, neither in HTML nor in Markdown. A template
that fails is warned of with its line, and the builtin page is written in its place and says so.

{filters}

## What a template can use
"""


def page() -> str:
    """The whole page."""
    pages = ["| page | tells | blocks |", "|---|---|---|"]
    for name, text in PAGES.items():
        pages.append(f"| `{name}` | {text} | {', '.join(_blocks(name))} |")
    filters = ["| filter | makes |", "|---|---|"]
    filters += [f"| `{name}` | {text} |" for name, (_, text) in FILTERS.items()]
    lines = [HEAD.format(pages="\n".join(pages), filters="\n".join(filters))]
    kinds = [fields.Facts, *(getattr(fields, n) for n in fields.__all__ if n != "Facts")]
    for kind in kinds:
        if kind is not fields.Fields:
            lines += _section(kind)
    return "\n".join(lines)


def _blocks(name: str) -> list[str]:
    source = builtin_source(f"{name}.j2")
    if name.endswith(".html"):
        source = builtin_source("parts/page.html.j2") + source
    return list(dict.fromkeys(re.findall(r"{% block (\w+) %}", source)))


def _section(kind: type[fields.Fields]) -> list[str]:
    lines = [
        f"### {kind.__name__}",
        "",
        str(kind.__doc__),
        "",
        "| name | type | |",
        "|---|---|---|",
    ]
    for name, field in kind.model_fields.items():
        of = str(field.annotation)
        if isinstance(field.annotation, type) and "[" not in of:
            of = field.annotation.__name__
        of = of.replace(f"{fields.__name__}.", "").replace("|", "or").replace("None", "none")
        lines.append(f"| `{name}` | `{of}` | {field.description or ''} |")
    return [*lines, ""]


if __name__ == "__main__":
    print(page(), end="")
