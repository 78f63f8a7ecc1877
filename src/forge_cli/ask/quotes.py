"""Each quote of an answer, looked up byte for byte in what was shown, with its lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from forge_cli.core.answer_form import is_abstention, quote_spans
from forge_cli.core.records import Chunk, Document

_ANSWER = "##Answer:"
# How quotes are shown: in a text, and as a block. A model's own words must not look so.
_LIKENESS = re.compile(
    r"(?P<within>[”\"'»]\s*)\((?P<place>[^()\n]*:\d+-\d+)\)"
    r"|^(?P<head>[^\n]*:\d+-\d+)(?=[ \t]*\n[ \t])",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Located:
    """A quote, where it stands: lines from 1, both inclusive; number of the document, from 1."""

    text: str
    number: int
    chunk: Chunk
    start_line: int
    end_line: int

    @property
    def path(self) -> str:
        """Of the file."""
        return self.chunk.path

    def __str__(self) -> str:
        return f"{self.path}:{self.start_line}-{self.end_line}"


@dataclass(frozen=True)
class Checked:
    """What an answer says, with nothing shown as a quote that is none.

    Attributes:
        answer: the whole of it, true quotes with where they stand, others struck.
        final: the answer alone, in the same way. abstained: it says that nothing answers.
        struck: quotes that stand in no document.
    """

    answer: str
    reason: str
    final: str
    abstained: bool
    quotes: tuple[Located, ...]
    struck: tuple[str, ...]


def as_document(chunk: Chunk) -> Document:
    """A chunk as it is shown: without newlines around it (`show_documents`)."""
    text = chunk.text.strip("\n")
    return Document(id=chunk.id, path=chunk.path, symbol=chunk.symbol, text=text, oracle=False)


def check(written: str, shown: Sequence[Chunk]) -> Checked:
    """Find the quotes of a written answer in the documents, and strike those that are in none."""
    quotes: list[Located] = []
    struck: list[str] = []
    parts = {"reason": "", "final": ""}
    into = "reason"
    own = ""  # the model's words since the last quote
    for is_quote, text in quote_spans(written):
        if not is_quote:
            before, mark, after = text.partition(_ANSWER) if into == "reason" else (text, "", "")
            own += before
            if mark:
                parts[into] += _own_words(own)
                into, own = "final", after
        elif text.strip():
            parts[into] += _own_words(own)
            own = ""
            found = locate(text, shown, parts[into])
            if found:
                quotes.append(found)
                parts[into] += f"\n“{text}” ({found})"
            else:
                struck.append(text)
                parts[into] += f"\n{strike(text)}"
    parts[into] += _own_words(own)
    if into == "reason":  # a model that does not know the form
        parts = {"reason": "", "final": parts["reason"]}
    reason = parts["reason"].removeprefix("##Reason:").strip()
    final = parts["final"].strip()
    answer = f"{reason}\n{final}".strip()
    return Checked(answer, reason, final, is_abstention(final), tuple(quotes), tuple(struck))


def strike(text: str) -> str:
    """How a quote is shown that is none."""
    return f"[not in the documents: “{text.strip()}”]"


def _own_words(text: str) -> str:
    """A model's words, where they look like a quote with its place: nobody looked that up."""
    return _LIKENESS.sub(
        lambda found: f"{found['within'] or ''}[{found['place'] or found['head']}, not looked up]",
        text,
    )


def locate(quote: str, shown: Sequence[Chunk], reason: str = "") -> Located | None:
    """Where a quote stands verbatim; None where it does not.

    Of several documents the one that the reason names last, else the first.
    """
    for number in [*_named(reason, len(shown)), *range(1, len(shown) + 1)]:
        chunk = shown[number - 1]
        if quote in as_document(chunk).text:
            at = chunk.text.index(quote)
            first = at + len(quote) - len(quote.lstrip())
            last = at + len(quote.rstrip())
            lines = [chunk.start_line + chunk.text.count("\n", 0, end) for end in (first, last)]
            return Located(quote, number, chunk, lines[0], lines[1])
    return None


def _named(reason: str, count: int) -> Iterator[int]:
    for number in reversed(re.findall(r"\[(\d{1,4})\]", reason)):
        if 1 <= int(number) <= count:
            yield int(number)
