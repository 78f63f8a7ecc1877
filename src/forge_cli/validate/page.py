"""The report as one page that needs nothing else: `--report report.html`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from forge_cli.core.jsonl import atomic_file, write_json
from forge_cli.core.records import Document, Example
from forge_cli.validate.report import Report

_BINS = 24
_SHOWN_CHARS = 1_200


def write_report(report: Report, path: Path) -> None:
    """Write the report, as a page where the path ends in .html, else as JSON."""
    if path.suffix.lower() not in (".html", ".htm"):
        write_json(path, report.as_json())
        return
    with atomic_file(path) as stream:
        stream.write(render_page(report).encode())


def render_page(report: Report) -> str:
    """The page's HTML."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = files("forge_cli.validate").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        report=report,
        kinds=bars(report.kinds),
        rejects=bars(report.rejects),
        positions=bars(
            {str(n): count for n, count in enumerate(report.positions, 1)}, ordered=True
        ),
        splits=bars(report.splits),
        tokens=histogram(report.tokens),
        quotes=histogram(report.quotes),
        samples=[_sample(example) for example in report.samples],
    )


def bars(counts: dict[str, int], *, ordered: bool = False) -> list[tuple[str, int, float]]:
    """(name, count, width in per cent of the largest), largest first unless `ordered`."""
    most = max(counts.values(), default=0)
    rows = [(name, count, 100 * count / most if most else 0.0) for name, count in counts.items()]
    return rows if ordered else sorted(rows, key=lambda row: -row[1])


def histogram(values: Sequence[int]) -> dict[str, object] | None:
    """Counts of values in equal bins, ready to draw; None where there is nothing to draw."""
    if not values:
        return None
    low, high = min(values), max(values)
    step = max(1, -(-(high - low + 1) // _BINS))
    counts = [0] * (-(-(high - low + 1) // step))
    for value in values:
        counts[(value - low) // step] += 1
    most = max(counts)
    ordered = sorted(values)
    return {
        "bins": [
            {"from": low + n * step, "to": low + (n + 1) * step - 1, "n": count,
             "height": 100 * count / most}
            for n, count in enumerate(counts)
        ],
        "low": low,
        "high": high,
        "median": ordered[len(ordered) // 2],
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
    }  # fmt: skip


def _sample(example: Example) -> dict[str, object]:
    quotes: dict[str, list[str]] = {}
    for quote in example.answer.quotes:
        quotes.setdefault(quote.document, []).append(quote.text)
    return {
        "example": example,
        "documents": [
            (document, marked(document, quotes.get(document.id, [])))
            for document in example.documents
        ],
    }


def marked(document: Document, quotes: Sequence[str]) -> list[tuple[str, bool]]:
    """A document's text in pieces, with whether each is quoted; a long one is cut."""
    if not quotes:
        text = document.text
        return [(text[:_SHOWN_CHARS] + (" …" if len(text) > _SHOWN_CHARS else ""), False)]
    pattern = "|".join(re.escape(quote) for quote in sorted(quotes, key=len, reverse=True))
    pieces = re.split(f"({pattern})", document.text)
    return [(piece, n % 2 == 1) for n, piece in enumerate(pieces) if piece]
