"""What a teacher wrote, read and verified: only what the document bears out is taken.

Nothing is believed. A quote that is not in the document becomes the span that it means beyond
doubt, a question that says "this function" names it; any other fault costs the pair.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any

from forge_cli.core.answer_form import is_abstention
from forge_cli.core.records import Chunk
from forge_cli.raft.contexts import jaccard
from forge_cli.raft.index import last_name
from forge_cli.raft.questions import Ask
from forge_cli.raft.spans import QUOTE_CHARS, find_span

_LEAST_ALIKE = 0.9  # of lines that a quote is taken for
_LONGEST_ANSWER = 600
_SAME_QUESTION = 0.8  # Jaccard similarity of the words that count
_THIS = re.compile(
    r"\b(?:this|the (?:given|above|following|provided|shown))(?: (?:python|code))?"
    r" (?:function|method|class|code(?: snippet)?|snippet|definition|program)\b",
    re.IGNORECASE,
)
_OUTSIDE = re.compile(r"\b(?:document|snippet|excerpt|passage|code above)\b", re.IGNORECASE)
# What only code looks like: numbers, snake_case, camelCase.
_CODE = re.compile(r"(?<![\w.])(?:\d+(?:\.\d+)?|\w*[a-z\d]_\w+|[a-z]\w*[a-z][A-Z]\w*)(?!\w)")
_SMALL = {
    "a", "an", "and", "are", "as", "at", "by", "do", "does", "for", "from", "has", "how", "if",
    "in", "is", "it", "its", "of", "on", "or", "that", "the", "this", "to", "what", "when",
    "which", "who", "why", "will", "with", "function", "method", "class",
}  # fmt: skip


class Refused(Exception):
    """A pair is not taken; the message says why."""


def read_pairs(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects with a question in a text, whatever stands between them."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at != -1:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            if isinstance(value, dict) and "question" in value:
                yield value
        at = text.find("{", end)


def verify(pair: dict[str, Any], chunk: Chunk, named: str, taken: list[str]) -> Ask:
    """The question of a pair, sound and mended where that leaves no doubt.

    Args:
        named: how questions name the chunk, from `Index.refer`.
        taken: the questions about the chunk that were taken before.

    Raises:
        Refused: with the first fault.
    """
    question, answer, quote = (pair.get(key) for key in ("question", "answer", "quote"))
    if not all(isinstance(value, str) and value.strip() for value in (question, answer, quote)):
        raise Refused("a field is missing")
    question, answer = " ".join(str(question).split()), " ".join(str(answer).split())
    span = find_quote(str(quote), chunk.text)
    if not span:
        raise Refused("its quote is not in the document")
    if len(span) > QUOTE_CHARS or len(re.findall(r"\w+", span)) < 2:
        raise Refused("its quote is too long or too short")
    question = _name(question, chunk, named)
    _check_answer(question, answer, chunk)
    _check_miscopied(answer, str(quote), span, chunk)
    words = _words(question)
    if any(jaccard(words, _words(other)) >= _SAME_QUESTION for other in taken):
        raise Refused("asked twice")
    return Ask("teacher", question, "", answer, [span], unless=last_name(chunk.symbol))


def find_quote(quote: str, text: str) -> str:
    """The verbatim span that a quote means: itself, but for white space, or lines like it."""
    quote = re.sub(r"^```\w*\n|\n```$", "", quote.strip("\n")).strip()
    if quote in text:
        return quote
    return find_span(quote, text) or _nearest(quote, text)


def _nearest(quote: str, text: str) -> str:
    """The lines that a quote miscopies, or ""."""
    wanted = "\n".join(" ".join(line.split()) for line in quote.splitlines() if line.strip())
    height = wanted.count("\n") + 1
    lines = text.splitlines(keepends=True)
    best, found = _LEAST_ALIKE, ""
    for start in range(len(lines) - height + 1):
        window = lines[start : start + height]
        folded = "\n".join(" ".join(line.split()) for line in window)
        matcher = difflib.SequenceMatcher(None, folded, wanted, autojunk=False)
        if matcher.quick_ratio() >= best and (ratio := matcher.ratio()) >= best:
            best, found = ratio, "".join(window).strip()
    return found


def _name(question: str, chunk: Chunk, named: str) -> str:
    """The question, with the definition in it as `named` has it."""
    if not 10 <= len(question) <= 400 or len(question.split()) < 3:
        raise Refused("too long or too short")
    symbol, last = chunk.symbol or "", last_name(chunk.symbol)
    question = _THIS.sub(lambda _: named, question)
    if named not in question and not (symbol in question and chunk.path in question):
        either = rf"(?:{re.escape(symbol)}|{re.escape(last)})"
        bare = re.compile(rf"`{either}(?:\(\))?`|(?<![\w.`]){either}(?!\w|\.\w)(?:\(\))?")
        question, count = bare.subn(lambda _: named, question, count=1)
        if not count:
            raise Refused("its question does not name the definition")
    if _OUTSIDE.search(question) and not _OUTSIDE.search(chunk.text):
        raise Refused("its question speaks of how it was asked")
    return question


def _check_answer(question: str, answer: str, chunk: Chunk) -> None:
    if len(answer) > _LONGEST_ANSWER:
        raise Refused("too long or too short")
    if is_abstention(answer):
        raise Refused("it does not answer")
    if answer.lower().strip(" .!") in ("yes", "no") or not _words(answer) - _words(question):
        raise Refused("its answer says nothing")
    # What looks like code and stands nowhere in the document was made up.
    known = f"{chunk.text}\n{chunk.header}\n{question}\n{chunk.path}"
    spans = (re.sub(r"[()\s].*$", "", one) for one in re.findall(r"`([^`\s]+)`", answer))
    words = set(re.findall(r"\d+\.\d+|\w+", known))
    bare = _CODE.findall(re.sub(r"`[^`]*`", "", answer))
    if any(one not in known for one in spans) or any(one not in words for one in bare):
        raise Refused("its answer names what is not in the document")
    if not _stems(answer) & _stems(f"{chunk.text} {chunk.header}"):
        raise Refused("its answer has nothing to do with the document")


def _check_miscopied(answer: str, quote: str, span: str, chunk: Chunk) -> None:
    """An answer must not rest on what its quote got wrong."""
    wrong = _words(quote) - _words(span) - _words(chunk.text)
    if wrong & _words(answer):
        raise Refused("its answer rests on what is not in the document")


def _words(text: str) -> set[str]:
    return {word.lower() for word in re.findall(r"\w+", text)} - _SMALL


def _stems(text: str) -> set[str]:
    """Words and parts of names, by their first five letters; numbers and brackets as they are."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+|\[\]|\{\}", text)
    return {part.lower()[:5] for part in parts} - _SMALL
