"""Which names an import statement brings into a file."""

from __future__ import annotations

import re
from functools import lru_cache

_NOT_NAMES = {b"import", b"as", b"type", b"from", b"self", b"local"}
_LAST_PART = re.compile(r"""[./:\\"'<\s]""")
_ALIAS = re.compile(r"\bas\s+(\w+)\s*;?$|^using\s+(\w+)\s*=")


@lru_cache(maxsize=4096)
def import_names(statement: str, language: str) -> frozenset[bytes]:
    """The names (in UTF-8) that stand for what is imported, in any of the mined languages."""
    listed = _listed(statement, language)
    return frozenset(name.encode() for name in re.findall(r"\w+", listed)) - _NOT_NAMES


def _listed(statement: str, language: str) -> str:
    if language == "python":
        if statement.startswith("from "):
            return statement.partition(" import ")[2]
        return statement  # import a.b as c
    head, from_, _ = statement.partition(" from ")
    if from_ and head.startswith("import"):  # JavaScript: the names stand before `from`
        return head
    if language == "lua":  # local a = require("b")
        return head.partition("=")[0]
    if "{" in statement:  # Rust: use a::{b, c}; so do PHP and Scala
        return statement.partition("{")[2]
    if alias := _ALIAS.search(statement):
        return alias[1] or alias[2]
    # The last part of the path, without what a C header or a script is called by.
    path = re.sub(r"\.(h|hpp|hh|sh|bash)$", "", statement.rstrip("; \n>\"')"))
    last = _LAST_PART.split(path)[-1]
    if language == "ruby":  # require "a/b_c" defines BC, or B_C
        return f"{last} {last.upper()} {last.title().replace('_', '')}"
    return last
