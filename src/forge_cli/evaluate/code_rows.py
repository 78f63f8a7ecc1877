"""Rows made of the code of held-out files: definitions to complete, and texts to foretell."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Sequence

from forge_cli.core.records import Answer, Chunk, Example, Message, Origin, content_id
from forge_cli.evaluate.sample import spread

COMPLETE = (
    "You complete code of a repository. Go on exactly where the code stops, with its indentation. "
    "Write the missing lines alone, without a code fence."
)
# A body worth asking for, and short enough to be generated whole.
_LEAST_LINES, _MOST_BODY = 2, 420
# A text worth foretelling, and short enough for one pass.
_LEAST_TEXT, _MOST_TEXT = 120, 2400


def completions(
    chunks: Sequence[Chunk], test: Sequence[Example], limit: int, seed: int
) -> list[Example]:
    """Definitions of the test rows' files, each to be completed after its signature and docstring.

    What stands before it, its imports and its class, is shown; documents are not.
    """
    rows = [row for _, _, row in definitions(chunks, test, "definition")]
    return spread(rows, limit, seed)


def definitions(
    chunks: Sequence[Chunk], test: Sequence[Example], kind: str
) -> list[tuple[Chunk, str, Example]]:
    """Every definition of the test rows' files that is worth asking for: its chunk, the chunk's
    text before the body (see `cuts`), and the row, whose final answer is the body.

    Args:
        kind: of the rows' origin.
    """
    found = []
    for chunk in _held_out(chunks, test):
        if chunk.kind not in ("function", "method", "class") or chunk.parts > 1:
            continue
        before = f"{chunk.header.rstrip()}\n\n" if chunk.header.strip() else ""
        for number, (head, body) in enumerate(cuts(chunk)):
            if body.count("\n") + 1 < _LEAST_LINES or len(body) > _MOST_BODY:
                continue
            asked = f"{chunk.path}\n```{chunk.language}\n{before}{head}```"
            found.append((chunk, head, _row(chunk, kind, COMPLETE, asked, body, number)))
    return found


def texts(chunks: Sequence[Chunk], test: Sequence[Example], limit: int, seed: int) -> list[Example]:
    """Chunks of the test rows' files, as answers whose loss is taken: how well it is foretold."""
    # White space at its ends would be one token with what a chat's template puts there.
    rows = [
        _row(chunk, "text", f"Write the next part of {chunk.path}.", chunk.path, chunk.text.strip())
        for chunk in _held_out(chunks, test)
        if _LEAST_TEXT <= len(chunk.text) <= _MOST_TEXT
    ]
    return spread(rows, limit, seed)


def _held_out(chunks: Sequence[Chunk], test: Sequence[Example]) -> list[Chunk]:
    paths = {example.origin.path for example in test}
    return [chunk for chunk in chunks if chunk.path in paths]


def cuts(chunk: Chunk) -> list[tuple[str, str]]:
    """Each body in a chunk: the chunk's text before it, and itself without white space at its end.

    The first part ends with a line break; a docstring belongs to it. Of a class in Python, the
    bodies of its methods, each behind all that stands before it. None where the place is not sure.
    """
    lines = chunk.text.splitlines(keepends=True)
    if chunk.language == "python":
        places = _python_bodies(chunk.text)
    else:
        head = _other_head(chunk, lines) if chunk.kind != "class" else 0
        places = [(head, len(lines))] if head else []
    return [("".join(lines[:start]), "".join(lines[start:end]).rstrip()) for start, end in places]


def _python_bodies(text: str) -> list[tuple[int, int]]:
    """First line of each body, after its docstring, and the line after its last; from 0."""
    # An indented method stands alone once its indentation is gone; comments may stand before it.
    try:
        tree = ast.parse(textwrap.dedent(text))
    except (SyntaxError, ValueError, RecursionError):
        return []
    if len(tree.body) != 1:
        return []
    one = tree.body[0]
    found = []
    for node in one.body if isinstance(one, ast.ClassDef) else [one]:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        described = ast.get_docstring(node, clean=False) is not None
        statements = node.body[1:] if described else node.body
        # One on the line of its signature cannot be cut off.
        if statements and statements[0].lineno > node.lineno:
            end = node.end_lineno or statements[-1].lineno
            found.append((statements[0].lineno - 1, end))
    return found


def _other_head(chunk: Chunk, lines: Sequence[str]) -> int:
    """Lines up to the one that ends the signature; 0 where that is not found."""
    wanted = "".join((chunk.signature or "").split())
    begun = next((n for n, line in enumerate(lines) if wanted[:8] in "".join(line.split())), None)
    if not wanted or begun is None:
        return 0
    seen = ""
    for number in range(begun, len(lines)):
        seen += "".join(lines[number].split())
        if wanted in seen:
            return number + 1
    return 0


def _row(chunk: Chunk, kind: str, system: str, asked: str, answer: str, number: int = 0) -> Example:
    """`number`: which of the chunk's rows it is."""
    own = content_id(kind, chunk.id, *([str(number)] if number else []))
    chat = [("system", system), ("user", asked), ("assistant", answer)]
    return Example(
        # Rows of a file share nothing that a model could run once; each is a context of its own.
        id=own,
        context_id=own,
        documents=[],
        question=asked,
        answer=Answer(reason="", final=answer),
        messages=[Message(role=role, content=content) for role, content in chat],  # type: ignore[arg-type]
        origin=Origin(kind=kind, chunk=chunk.id, path=chunk.path, committed=chunk.committed),
        split="test",
    )
