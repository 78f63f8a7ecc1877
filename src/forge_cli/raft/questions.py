"""Questions whose answers stand in the code: no teacher, and every quote is verbatim."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from forge_cli.core.records import Chunk
from forge_cli.raft.python_facts import Facts, read_facts

# Longer than this a quote is cut at a line's end.
_QUOTE_CHARS = 300
_TEST_PATH = re.compile(r"(^|/)(tests?|testing|__tests__)(/|$)|(^|/)test_|_test\.|\.(test|spec)\.")


@dataclass(frozen=True)
class Ask:
    """A question about one chunk, with its answer and the spans that prove it."""

    kind: str
    question: str
    final: str
    quotes: list[str]


# {s} is the symbol, {p} the path, {a} a parameter.
_WORDINGS = {
    "purpose": [
        "What does `{s}` do?",
        "What is the purpose of `{s}` in `{p}`?",
        "Describe in one sentence what `{s}` is for.",
        "I came across `{s}`. What is it there for?",
    ],
    "signature": [
        "What is the signature of `{s}`?",
        "How is `{s}` declared?",
        "Which parameters does `{s}` take? Give its declaration.",
    ],
    "default": [
        "What is the default of the parameter `{a}` of `{s}`?",
        "If `{s}` is called without `{a}`, which value does `{a}` have?",
        "Which value does `{a}` take by default in `{s}`?",
    ],
    "returns": [
        "Which type does `{s}` return?",
        "What is the return type of `{s}`?",
        "A call of `{s}` gives a value of which type?",
    ],
    "raises": [
        "Which exceptions does `{s}` raise itself?",
        "What can be raised in the body of `{s}`?",
        "Name the exceptions that `{s}` raises directly.",
    ],
    "calls": [
        "Which functions of this repository does `{s}` call?",
        "What does `{s}` call within this code base?",
        "Name the repository's own functions that `{s}` uses.",
    ],
}  # fmt: skip


def is_test(path: str) -> bool:
    """Whether a path looks like test code, which is shown but not asked about."""
    return _TEST_PATH.search(path) is not None


def is_askable(chunk: Chunk) -> bool:
    """Whether a chunk is a whole definition outside the tests."""
    return (
        chunk.kind in ("function", "method", "class")
        and chunk.symbol is not None
        and chunk.parts == 1
        and not is_test(chunk.path)
    )


def callees(chunks: Sequence[Chunk]) -> dict[tuple[str, str], set[str]]:
    """(path, symbol) of a caller → last names of the definitions that it calls.

    Only callers whose symbol stands once in the repository: `called_by` names no file.
    """
    places: dict[str, set[str]] = {}
    for chunk in chunks:
        if chunk.symbol:
            places.setdefault(chunk.symbol, set()).add(chunk.path)
    found: dict[tuple[str, str], set[str]] = {}
    for chunk in chunks:
        for caller in chunk.called_by:
            if chunk.symbol and len(paths := places.get(caller, set())) == 1:
                name = chunk.symbol.rsplit(".", 1)[-1]
                found.setdefault((next(iter(paths)), caller), set()).add(name)
    return found


def ask(chunk: Chunk, known: set[str], limit: int, rng: random.Random) -> list[Ask]:
    """Up to `limit` questions about a chunk, of different kinds, in random order.

    Args:
        known: last names of the definitions that the chunk calls, from `callees`.
    """
    facts = read_facts(chunk.text) if chunk.language == "python" else None
    makers: list[Callable[[], Iterator[tuple[str, str, str, list[str]]]]] = [
        lambda: _purpose(chunk),
        lambda: _signature(chunk),
        lambda: _from_facts(chunk, facts, rng),
        lambda: _calls(chunk, known),
    ]
    found = []
    for kind, argument, final, quotes in (item for make in makers for item in make()):
        if all(quote and quote in chunk.text for quote in quotes) and quotes and final:
            wording = rng.choice(_WORDINGS[kind])
            question = wording.format(s=chunk.symbol, p=chunk.path, a=argument)
            found.append(Ask(kind, question, final, quotes))
    rng.shuffle(found)
    return found[:limit]


def _purpose(chunk: Chunk) -> Iterator[tuple[str, str, str, list[str]]]:
    sentence = first_sentence(chunk.docstring or "")
    if len(sentence.split()) < 3:
        return
    span = find_span(sentence, chunk.text)
    if span:
        yield "purpose", "", sentence, [span]


def _signature(chunk: Chunk) -> Iterator[tuple[str, str, str, list[str]]]:
    if chunk.kind == "class" or not chunk.signature or len(chunk.signature) > _QUOTE_CHARS:
        return
    span = find_span(chunk.signature, chunk.text)
    if span:
        yield "signature", "", chunk.signature, [span]


def _from_facts(
    chunk: Chunk, facts: Facts | None, rng: random.Random
) -> Iterator[tuple[str, str, str, list[str]]]:
    if facts is None:
        return
    if facts.defaults:
        name = rng.choice(sorted(facts.defaults))
        span, value = facts.defaults[name]
        yield "default", name, value, [span]
    if facts.returns not in ("", "None") and "\n" not in facts.returns:
        declared = find_span(chunk.signature or "", chunk.text)
        yield "returns", "", facts.returns, [declared]
    if facts.raises:
        yield "raises", "", ", ".join(facts.raises), list(facts.raises.values())


def _calls(chunk: Chunk, known: set[str]) -> Iterator[tuple[str, str, str, list[str]]]:
    own = (chunk.symbol or "").rsplit(".", 1)[-1]
    names = [name for name in chunk.calls if name in known and name != own]
    if not 1 <= len(names) <= 5:
        return
    lines = []
    for name in names:
        called = re.compile(rf"\b{re.escape(name)}\s*\(")
        line = next((ln.strip() for ln in chunk.text.splitlines() if called.search(ln)), "")
        if not line or line.startswith(("def ", "class ", "#")):
            return
        lines.append(line[:_QUOTE_CHARS])
    yield "calls", "", ", ".join(names), list(dict.fromkeys(lines))


def first_sentence(docstring: str) -> str:
    """The first sentence of a docstring, on one line; "" where there is none worth asking."""
    paragraph = re.split(r"\n\s*\n", docstring.strip())[0]
    text = " ".join(paragraph.split())
    match = re.match(r"(.+?[.!?])(?=\s+[A-Z`]|$)", text)
    sentence = match.group(1) if match else text
    return sentence if len(sentence) <= _QUOTE_CHARS else ""


def find_span(text: str, within: str) -> str:
    """The verbatim span of `within` that reads `text` when white space is folded, or ""."""
    words = [re.escape(word) for word in re.split(r"\s+", text.strip()) if word]
    if not words:
        return ""
    match = re.search(r"[\s#/*]*\s".join(words), within)
    return match.group(0) if match else ""
