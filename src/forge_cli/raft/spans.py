"""Spans of source text: what answers quote, always verbatim."""

from __future__ import annotations

import re

# A longer quote costs more tokens than it proves.
QUOTE_CHARS = 300
# First words of a comment that speaks to a tool or to its authors, not of the code.
_NO_PROSE = re.compile(
    r"\W*(todo|fixme|xxx|hack|note|type: ignore|noqa|pylint|eslint|prettier|@\w+|:\w+|copyright"
    r"|spdx|license|deprecated|see\b|-{3,}|={3,}|<|>>>|#)",
    re.IGNORECASE,
)
# Docstrings that repeat what every such method does.
_SAYS_NOTHING = re.compile(
    r"(initiali[sz]e|construct(or)?|create|init)( an?| the)?( new)?( instance| object| self)?"
    r"( of .{1,30})?\.?$|return (self|repr|str|hash|len)\b.{0,20}$",
    re.IGNORECASE,
)
_SMALL = {
    "a", "an", "the", "of", "to", "for", "in", "is", "and", "or", "with", "this", "that", "it",
    "its", "get", "set", "return", "returns", "gets", "sets", "function", "method", "class",
}  # fmt: skip


def first_sentence(docstring: str) -> str:
    """The first sentence of a docstring, on one line; "" where there is none worth asking."""
    paragraph = re.split(r"\n\s*\n", docstring.strip())[0]
    text = " ".join(paragraph.split())
    match = re.match(r"(.+?[.!?])(?=\s+[A-Z`]|$)", text)
    sentence = match.group(1) if match else text
    return sentence if len(sentence) <= QUOTE_CHARS else ""


def is_telling(sentence: str, symbol: str) -> bool:
    """Whether a sentence says of a definition more than its name does."""
    words = re.findall(r"[^\W\d_]+", sentence)
    if len(words) < 3 or _NO_PROSE.match(sentence) or _SAYS_NOTHING.match(sentence):
        return False
    # "Returns a dictionary with these keys:" promises what comes after it.
    if sentence.rstrip().endswith((":", ",", "(", "e.g.", "i.e.", "etc")) or "::" in sentence:
        return False
    if re.search(r"\b(def|self\.|return \w+\()|[{}=;]", sentence):
        return False
    named = {w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", symbol)}
    told = {w.lower() for w in words} - _SMALL
    return len(told - named - {f"{n}s" for n in named}) >= 2


def find_span(text: str, within: str) -> str:
    """The verbatim span of `within` that reads `text` when white space is folded, or ""."""
    words = [re.escape(word) for word in re.split(r"\s+", text.strip()) if word]
    if not words:
        return ""
    match = re.search(r"[\s#/*]*\s".join(words), within)
    return match.group(0) if match else ""


def calling_line(text: str, name: str) -> str:
    """The first line of code that calls `name`, without its indentation, or ""."""
    called = re.compile(rf"(?<![\w]){re.escape(name)}\s*(::)?[(<!]")
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith(("#", "//", "*", "/*", "--", "def ", "class ", "fn ", "func ")):
            continue
        if called.search(bare) and len(bare) <= QUOTE_CHARS:
            return bare
    return ""
