"""Which names an import statement brings into a file."""

from __future__ import annotations

import re
from functools import lru_cache

_NOT_NAMES = {b"import", b"as", b"type", b"from", b"self"}
_LAST_PART = re.compile(r"""[./:\\"<]|\bas\b""")


@lru_cache(maxsize=4096)
def import_names(statement: str) -> frozenset[bytes]:
    """The names (in UTF-8) that stand for what is imported, in any of the mined languages."""
    head, from_, _ = statement.partition(" from ")
    if from_ and head.startswith("import"):  # JavaScript: the names stand before `from`
        listed = head
    elif statement.startswith("from "):  # Python: after `import`
        listed = statement.partition(" import ")[2]
    elif "{" in statement:  # Rust: use a::{b, c};
        listed = statement.partition("{")[2]
    elif statement.startswith("#") or any(mark in statement for mark in ("::", ";", '"')):
        # Java, Go, Rust, C: the last part of the path.
        path = statement.rstrip('; \n>"').removesuffix(".h")
        listed = _LAST_PART.split(path)[-1]
    else:  # Python: import a.b as c
        listed = statement
    return frozenset(name.encode() for name in re.findall(r"\w+", listed)) - _NOT_NAMES
