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
    text before the body (see `cut`), and the row, whose final answer is the body.

    Args:
        kind: of the rows' origin.
    """
    found = []
    for chunk in _held_out(chunks, test):
        if chunk.kind not in ("function", "method") or chunk.parts > 1:
            continue
        head, body = cut(chunk)
        if body.count("\n") + 1 < _LEAST_LINES or len(body) > _MOST_BODY:
            continue
        before = f"{chunk.header.rstrip()}\n\n" if chunk.header.strip() else ""
        asked = f"{chunk.path}\n```{chunk.language}\n{before}{head}```"
        found.append((chunk, head, _row(chunk, kind, COMPLETE, asked, body)))
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


def cut(chunk: Chunk) -> tuple[str, str]:
    """A definition before its body, and the body, without the white space at its end.

    The first part ends with a line break; a docstring belongs to it. ("", "") where the place is
    not sure.
    """
    lines = chunk.text.splitlines(keepends=True)
    count = _python_head(chunk.text) if chunk.language == "python" else _other_head(chunk, lines)
    return ("".join(lines[:count]), "".join(lines[count:]).rstrip()) if count else ("", "")


def _python_head(text: str) -> int:
    """Lines before the first statement that is no docstring; 0 where there is none."""
    # An indented method stands alone once its indentation is gone; comments may stand before it.
    try:
        tree = ast.parse(textwrap.dedent(text))
    except (SyntaxError, ValueError, RecursionError):
        return 0
    if len(tree.body) != 1 or not isinstance(tree.body[0], ast.FunctionDef | ast.AsyncFunctionDef):
        return 0
    body = tree.body[0].body
    statements = body[1:] if ast.get_docstring(tree.body[0], clean=False) is not None else body
    if not statements:
        return 0
    begun = statements[0].lineno - 1
    return begun if begun >= tree.body[0].lineno else 0


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


def _row(chunk: Chunk, kind: str, system: str, asked: str, answer: str) -> Example:
    chat = [("system", system), ("user", asked), ("assistant", answer)]
    return Example(
        id=content_id(kind, chunk.id),
        # Rows of a file share nothing that a model could run once; each is a context of its own.
        context_id=content_id(kind, chunk.id),
        documents=[],
        question=asked,
        answer=Answer(reason="", final=answer),
        messages=[Message(role=role, content=content) for role, content in chat],  # type: ignore[arg-type]
        origin=Origin(kind=kind, chunk=chunk.id, path=chunk.path, committed=chunk.committed),
        split="test",
    )
