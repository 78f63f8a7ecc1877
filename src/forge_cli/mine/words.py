"""Whole words in a text, faster than a regular expression for each."""

from __future__ import annotations

from collections.abc import Iterator


def occurrences(text: str, word: str) -> Iterator[int]:
    """Where `word` (not empty) stands in `text` as a whole identifier."""
    size = len(word)
    at = text.find(word) if word else -1
    while at != -1:
        end = at + size
        before = at > 0 and (text[at - 1].isalnum() or text[at - 1] == "_")
        after = end < len(text) and (text[end].isalnum() or text[end] == "_")
        if not before and not after:
            yield at
        at = text.find(word, end)
