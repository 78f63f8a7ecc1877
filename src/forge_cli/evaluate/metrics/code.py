"""Scores of a completed definition."""

from __future__ import annotations

import ast
import re
import textwrap

from forge_cli.core.records import Example
from forge_cli.evaluate.metrics.text import chrf, edit_similarity

_FENCE = re.compile(r"```[\w+-]*\n(.*?)(?:```|\Z)", re.DOTALL)
_CLOSERS = set("})];, ")


def completion_scores(example: Example, text: str) -> dict[str, float]:
    """How near a completion is to the body that stands in the repository.

    exact_match: the same lines, but for white space at their ends and empty ones (RepoBench,
        arXiv 2306.03091, section 3.3, compares lines so).
    edit_similarity, chrf: see `metrics.text`.
    parses: Python only: the definition with this body is Python.
    """
    head = _FENCE.search(example.question)
    shown = head.group(1) if head else ""
    wanted, given = example.answer.final, trim(text, example.answer.final)
    found = {
        "exact_match": float(_lines(given) == _lines(wanted)),
        "edit_similarity": edit_similarity(given, wanted),
        "chrf": chrf(given, wanted),
    }
    if "```python" in example.question:
        found["parses"] = float(_parses(shown, given))
    return found


def trim(text: str, like: str) -> str:
    """The code of an answer up to where the body ends: a line further out than its first one.

    Args:
        like: the reference, whose first line says how far in the body stands.
    """
    fenced = _FENCE.search(text)
    lines = (fenced.group(1) if fenced else text).strip("\n").splitlines()
    depth = _depth(like.splitlines()[0])
    if lines and _depth(lines[0]) == 0 < depth:
        # Models like to leave out the indentation of the first line, or of all of them.
        rest = [line for line in lines[1:] if line.strip()]
        flat = not rest or min(map(_depth, rest)) < depth
        lines = [" " * depth + line if flat or not n else line for n, line in enumerate(lines)]
    kept = []
    for line in lines:
        if line.strip() and _depth(line) < depth:
            if set(line.strip()) <= _CLOSERS:
                kept.append(line)
            break
        kept.append(line)
    return "\n".join(kept).rstrip()


def _depth(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _parses(shown: str, body: str) -> bool:
    """Whether what was shown, from its last definition on, is Python with this body."""
    lines = shown.splitlines(keepends=True)
    starts = [n for n, line in enumerate(lines) if re.match(r"\s*(async\s+def|def|@)\b", line)]
    if not starts or not body.strip():
        return False
    begun = max(n for n in starts if "def" in lines[n])
    try:
        ast.parse(textwrap.dedent("".join(lines[begun:]) + body))
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True
