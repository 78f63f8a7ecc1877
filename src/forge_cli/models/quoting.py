"""What may follow in an answer so that no quote in it is false, byte by byte.

A quote is what stands between the marks of the answer form, less one newline at either end. It
is held to spans of the documents: bytes, because a token may end within a character.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from forge_cli.core.answer_form import BEGIN, END

_BEGIN, _END = BEGIN.encode(), END.encode()
# How a closing mark may have begun.
_CLOSING = [mark[:n] for mark in (_END, b"\n" + _END) for n in range(1, len(mark))]
# Between documents: no byte of UTF-8, so that no quote reaches from one into the next.
_WALL = b"\xff"
# A quote says something once it has one of these: a word's character, or what is not ASCII.
_TELLING = rb"[0-9A-Za-z_\x80-\xfe]"


@dataclass(frozen=True)
class Place:
    """Where an answer stands.

    Attributes:
        quoting: whether a quote is open.
        seen: the bytes after its mark; outside of quotes the last ones, which may begin a mark.
    """

    quoting: bool = False
    seen: bytes = b""

    @property
    def mark_begun(self) -> bool:
        """Whether the last bytes may be the beginning of the next mark."""
        mark = _END if self.quoting else _BEGIN
        return any(self.seen.endswith(mark[:n]) for n in range(1, len(mark)))


class QuoteRule:
    """Which bytes may follow a place in an answer about some documents.

    Args:
        documents: as they are shown. longest: bytes of a quote, about; then it has to be closed.
    """

    def __init__(self, documents: Sequence[str], longest: int = 600) -> None:
        # No quote holds the mark that ends it.
        parts = [part.rstrip() for text in documents for part in text.split(END)]
        self._text = _WALL.join(part.encode() for part in parts if part)
        self._longest = longest

    def advance(self, place: Place, more: bytes) -> Place | None:
        """The place after `more`; None where a quote would become false or say nothing."""
        quoting, seen = place.quoting, place.seen + more
        while True:
            head, mark, rest = seen.partition(_END if quoting else _BEGIN)
            if not mark:
                break
            if quoting and not self._is_quote(_without_newline(head).removesuffix(b"\n")):
                return None
            quoting, seen = not quoting, rest
        if not quoting:
            return Place(False, seen[1 - len(_BEGIN) :])
        return Place(True, seen) if self._may_grow(seen) else None

    def next_bytes(self, place: Place) -> bytes:
        """All bytes that may come next in an open quote, and some that may not."""
        body = _without_newline(place.seen)
        found = set(_END + b"\n")
        at = self._text.find(body)
        if not body:
            return bytes(found.union(self._text))
        while at >= 0:
            found.update(self._text[at + len(body) : at + len(body) + 1])
            at = self._text.find(body, at + 1)
        return bytes(found)

    def _may_grow(self, seen: bytes) -> bool:
        """Whether an open quote is a span so far, or one whose closing mark has begun."""
        body = _without_newline(seen)
        if self._is_span(body) and self._has_room(body) and self._may_tell(body):
            return True
        return any(body.endswith(m) and self._is_quote(body[: -len(m)]) for m in _CLOSING)

    def _is_span(self, body: bytes) -> bool:
        begins_within_character = body[:1] and body[0] & 0xC0 == 0x80
        return not begins_within_character and _WALL not in body and body in self._text

    def _may_tell(self, body: bytes) -> bool:
        """Whether a span says something, or goes on so somewhere within the same document."""
        if re.search(_TELLING, body):
            return True
        return bool(re.search(re.escape(body) + rb"[^\xff]*?" + _TELLING, self._text))

    def _has_room(self, body: bytes) -> bool:
        told = body.lstrip()
        last = next((n for n in range(1, 5) if told[-n:] and told[-n] & 0xC0 != 0x80), 0)
        # Counted to the beginning of the last character, which may always be finished.
        return len(told) - last < self._longest

    def _is_quote(self, body: bytes) -> bool:
        """Whether a quote may end here: a span of whole characters that says something."""
        if not self._is_span(body) or not re.search(_TELLING, body):
            return False
        try:
            return bool(body.decode().strip())
        except UnicodeDecodeError:
            return False


def _without_newline(seen: bytes) -> bytes:
    """A quote's bytes without the newline that the form has after the mark."""
    return seen.removeprefix(b"\n")
