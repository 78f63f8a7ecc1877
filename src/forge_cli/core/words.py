"""Words of code and of questions about it, for searching one by the other."""

from __future__ import annotations

import re


def words_of(text: str) -> list[str]:
    """Identifiers split at underscores and capitals, lower case."""
    return [w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", text)] or ["_"]
