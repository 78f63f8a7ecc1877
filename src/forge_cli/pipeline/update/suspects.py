"""Files whose new content looks damaged, or documented against its code.

No check of rows can see these: what a broken or lying file says is quoted from it word for word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from forge_cli.core.records import Chunk, Verdict
from forge_cli.core.words import words_of
from forge_cli.pipeline.update.changes import Changes, is_code
from forge_cli.pipeline.update.lineage import name_of

# Why the miner leaves a file out that it took before.
DAMAGED = {"binary", "encoding", "minified", "parse", "hang", "crash"}
# Sound code has errors in these: a grammar does not know what a macro stands for.
_MACROS = {"c", "cpp", "objc"}
_LEAST_DEFINITIONS = 4
# Documentation this little alike (Jaccard, of words) was written anew.
_ALIKE = 0.3
_LEAST_DOCS = 3
_ARGUMENTS = re.compile(r"^\s*(?:Args|Arguments|Parameters):\s*$", re.MULTILINE)
_SECTION = re.compile(r"^\s*(?:Returns|Raises|Yields|Examples?|Notes?|Attributes):", re.MULTILINE)


@dataclass(frozen=True)
class Suspect:
    """A file that is not to be learned from as it is.

    Attributes:
        check: damaged, syntax, vanished, documentation or before.
    """

    path: str
    check: str
    reason: str


def suspects(
    old: Sequence[Chunk],
    now: Sequence[Chunk],
    found: Changes,
    left_out: Iterable[Verdict] = (),
    before: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Suspect]:
    """Files that were sound in `old` and are doubtful in `now`, by path.

    damaged: it was mined, and is binary, minified or not to be parsed now. syntax: its syntax
    tree has errors and had none (C, C++: and brackets are not closed, as a macro that no grammar
    can know is an error too). vanished: more than half of its definitions are gone, and the
    file is not. documentation: half of what is documented in it, and three definitions at least,
    got other documentation beside the same code, or names parameters that are not there.
    before: it was suspicious when `old` was mined, and is as it was then.

    Args:
        left_out: the miner's verdicts of `now`.
        before: path → `name_of` of the chunks that a file held when it became suspicious.
    """
    was, after = by_file(old), by_file(now)
    doubts = [
        Suspect(v.path, "damaged", f"it was mined before and is left out now: {v.reason}")
        for v in left_out
        if v.path in was and v.check in DAMAGED
    ]
    differing = {c.path for c in (*found.added, *found.gone, *(new for _, new in found.changed))}
    for path in sorted(differing & was.keys() & after.keys()):
        doubts += _syntax(was[path], after[path])
        doubts += _vanished(path, was[path], after[path], found)
        doubts += _documented(path, after[path], found)
    known = {doubt.path for doubt in doubts}
    for path, names in before.items():
        if path not in known and sorted(map(name_of, after.get(path, ()))) == names:
            doubts.append(Suspect(path, "before", "it is as it was when it became suspicious"))
    return sorted(doubts, key=lambda one: (one.path, one.check))


def doubtful_docs(found: Changes, doubts: Iterable[Suspect] = ()) -> list[str]:
    """Definitions whose documentation may be false, as "path: why", sorted.

    In a file that is doubted for it they are not named one by one; elsewhere they are too few
    to leave it out, and only a reader can tell.
    """
    known = {doubt.path for doubt in doubts if doubt.check == "documentation"}
    other = {new.id for old, new in found.changed if _is_rewritten(old, new)}
    told = []
    for chunk in (*found.added, *(new for _, new in found.changed)):
        if chunk.path in known or not is_code(chunk):
            continue
        if chunk.id in other:
            told.append(f"{chunk.path}: {chunk.symbol} has other documentation on the same code")
        elif _is_false(chunk):
            told.append(f"{chunk.path}: {chunk.symbol} documents parameters that are not there")
    return sorted(told)


def by_file(chunks: Iterable[Chunk]) -> dict[str, list[Chunk]]:
    """path → its chunks, in order; their texts put together are the file."""
    files: dict[str, list[Chunk]] = {}
    for chunk in sorted(chunks, key=lambda c: (c.path, c.start_byte)):
        files.setdefault(chunk.path, []).append(chunk)
    return files


def _syntax(before: Sequence[Chunk], after: Sequence[Chunk]) -> Iterator[Suspect]:
    first = after[0]
    if _is_broken(after) and not _is_broken(before):
        yield Suspect(first.path, "syntax", f"it has errors as {first.language}, and had none")


def _is_broken(file: Sequence[Chunk]) -> bool:
    from forge_cli.mine.grammar import parse
    from forge_cli.mine.languages import languages

    about = languages().get(file[0].language)
    if about is None or not about.tagged or about.prose or file[0].language == "notebook":
        return False
    try:
        root, _ = parse("".join(c.text for c in file).encode(), file[0].language, calls=False)
    except ValueError:
        return True
    if root.has_error and file[0].language in _MACROS:
        return not _is_balanced(root)
    return bool(root.has_error)


def _is_balanced(root: Any) -> bool:
    """Whether as many brackets are closed as are opened, of those that stand in the text."""
    counts: Counter[str] = Counter()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        waiting += node.children
        if not node.is_missing:
            counts[node.type] += 1
    return all(counts[one] == counts[other] for one, other in ("()", "[]", "{}"))


def _vanished(
    path: str, before: Sequence[Chunk], after: Sequence[Chunk], found: Changes
) -> Iterator[Suspect]:
    defined = {chunk.symbol for chunk in before if is_code(chunk)}
    elsewhere = {was.symbol for new in found.moved if (was := found.before[new.id]).path == path}
    gone = defined - {chunk.symbol for chunk in after} - elsewhere
    if len(defined) >= _LEAST_DEFINITIONS and 2 * len(gone) > len(defined):
        yield Suspect(path, "vanished", f"{len(gone)} of {len(defined)} definitions are gone")


def _documented(path: str, after: Sequence[Chunk], found: Changes) -> Iterator[Suspect]:
    documented = sum(1 for chunk in after if is_code(chunk) and chunk.docstring)
    rewritten = sum(_is_rewritten(old, new) for old, new in found.changed if new.path == path)
    fresh = [*(new for _, new in found.changed), *found.added]
    false = sum(_is_false(chunk) for chunk in fresh if chunk.path == path)
    if rewritten + false >= _LEAST_DOCS and 2 * (rewritten + false) >= documented:
        yield Suspect(
            path, "documentation",
            f"of {documented} documented definitions {rewritten} got other documentation beside "
            f"the same code, and {false} name parameters that are not there",
        )  # fmt: skip


def _is_rewritten(old: Chunk, new: Chunk) -> bool:
    """Whether a definition says something else of the same code."""
    if not old.docstring or not new.docstring or _code_of(old) != _code_of(new):
        return False
    one, other = set(words_of(old.docstring)), set(words_of(new.docstring))
    return len(one & other) < _ALIKE * len(one | other)


def _code_of(chunk: Chunk) -> list[str]:
    """A definition's lines without its documentation and without blank ones."""
    said = {_bare(line) for line in (chunk.docstring or "").splitlines()}
    return [line.strip() for line in chunk.text.splitlines() if _bare(line) not in said | {""}]


def _bare(line: str) -> str:
    return line.strip(" \t#/*\"'")


def _is_false(chunk: Chunk) -> bool:
    """Whether documentation lists a parameter that the signature has not (Python)."""
    text, signature = chunk.docstring or "", chunk.signature or ""
    if chunk.language != "python" or chunk.kind == "class" or "**" in signature or not signature:
        return False
    names = [match[1] for match in re.finditer(r":param (?:[^:\s]+ )?(\w+):", text)]
    if start := _ARGUMENTS.search(text):
        rest = text[start.end() :]
        end = _SECTION.search(rest)
        lines = (rest[: end.start()] if end else rest).strip("\n").splitlines()
        depth = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
        entry = re.compile(rf"^\s{{{depth}}}\*{{0,2}}(\w+)(?: \([^)]*\))?:")
        names += [match[1] for line in lines if (match := entry.match(line))]
    return any(not re.search(rf"\b{name}\b", signature) for name in names)
