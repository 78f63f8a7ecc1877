"""The cells of a Jupyter notebook, as ranges of its bytes.

A chunk's text is the file's bytes, so a cell is a range of JSON: what stands in it is not
decoded. Decoded, the source is parsed for its calls and imports. What a cell put out (images in
base64, tables in HTML) is of kind "output", which no later stage shows to a model.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from forge_cli.mine.comments import line_start
from forge_cli.mine.grammar import Tags, parse
from forge_cli.mine.languages import languages

_SPACE = re.compile(r"[ \t\r\n]*")
_REST_OF_LINE = re.compile(rb"[ \t]*\r?\n")
_BULK = ("outputs", "attachments")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Segment:
    """A range of the file: kind "cell", "output" or "text"; what a cell of code says."""

    start: int
    end: int
    kind: str
    source: str = ""
    language: str = ""
    calls: list[str] = field(default_factory=list)


def find_segments(data: bytes, *, calls: bool, seconds: float) -> tuple[list[Segment], Tags]:
    """Segments that cover a notebook, in order, and the imports of all its cells.

    What is no notebook is one segment of text. A cell without outputs is one segment; else
    its source is apart from them.

    Args:
        calls: look for the calls of each cell too.
        seconds: longest parse of a cell.
    """
    tags = Tags(data)
    text = data.decode("utf-8")
    try:
        notebook = json.loads(text)
        cells = list(_cells(text))
    except (ValueError, RecursionError):
        cells = []
    if not cells:
        return [Segment(0, len(data), "text")], tags
    language = _language(notebook)
    marks = [mark for cell in cells for mark in _parted(text, *cell)]
    last = len(text[: cells[-1][1]].encode())
    end = rest.end() if (rest := _REST_OF_LINE.match(data, last)) else last
    starts = [line_start(data, len(text[:at].encode())) for at, _, _ in marks]
    segments = [Segment(0, starts[0], "text")]
    for (start, stop), (_, kind, cell) in zip(pairwise([*starts, end]), marks, strict=True):
        code = _source(cell) if kind == "cell" and cell.get("cell_type") == "code" else ""
        called: list[str] = []
        if code and language:
            # Without an end to the parse only the calls are lost.
            with contextlib.suppress(ValueError):
                cell_bytes = code.encode("utf-8", "replace")
                _, found = parse(cell_bytes, language, calls=calls, seconds=seconds)
                called = list(dict.fromkeys(name for _, name in found.calls))
                tags.imports += found.imports
        segments.append(Segment(start, stop, kind, code, language, called))
    segments.append(Segment(end, len(data), "text"))
    return [segment for segment in segments if segment.start < segment.end], tags


def _language(notebook: Any) -> str:
    """The kernel's language, if it has a query; else ""."""
    about = notebook.get("metadata")
    info = about.get("language_info") if isinstance(about, dict) else None
    name = info.get("name", "python") if isinstance(info, dict) else "python"
    known = languages().get(name) if isinstance(name, str) else None
    return known.name if known and known.tagged else ""


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    if isinstance(source, list):
        return "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""


def _parted(
    text: str, start: int, end: int, cell: dict[str, Any]
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(start, kind, cell) of what a cell is parted into: its source, and what it put out."""
    if not any(cell.get(name) for name in _BULK) or not cell.get("source"):
        yield start, "output" if any(cell.get(name) for name in _BULK) else "cell", cell
        return
    members = list(_members(text, start))
    number = next(n for n, (key, _, _) in enumerate(members) if key == "source")
    # Bulk before the source has the start of the cell with it, bulk after it the end.
    if any(key in _BULK for key, _, _ in members[:number]):
        yield start, "output", cell
        start = members[number][1]
    yield start, "cell", cell
    if any(key in _BULK for key, _, _ in members[number + 1 :]):
        yield members[number + 1][1], "output", cell


def _cells(text: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(start, end, cell) of each element of the notebook's "cells"."""
    for key, _, at in _members(text, _skip(text, 0)):
        if key != "cells" or text[at] != "[":
            continue
        at = _skip(text, at + 1)
        while text[at] != "]":
            cell, end = _DECODER.raw_decode(text, at)
            if not isinstance(cell, dict):
                raise ValueError("a cell is an object")
            yield at, end, cell
            at = _skip(text, end)
            at = _skip(text, at + 1) if text[at] == "," else at
        return


def _members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """(key, where the key begins, where the value does) of the object that begins at `at`."""
    if text[at] != "{":
        raise ValueError("not an object")
    at = _skip(text, at + 1)
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, at)
        value = _skip(text, _skip(text, end) + 1)
        yield key, at, value
        _, end = _DECODER.raw_decode(text, value)
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
