"""Questions about one definition whose answers stand in its code: every quote is verbatim."""

from __future__ import annotations

import random
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from forge_cli.core.records import Chunk
from forge_cli.raft.index import Index, last_name
from forge_cli.raft.python_facts import Facts, read_facts
from forge_cli.raft.spans import QUOTE_CHARS, calling_line, find_span, first_sentence, is_telling
from forge_cli.raft.wordings import UNSEEN, WORDINGS

_NO_PARAMETERS = re.compile(r"\(\s*(&?(mut\s+)?self|cls|this|void)?\s*,?\s*\)")
# How the declared type of a result stands in a signature.
_RESULT = {
    "rust": re.compile(r"\)\s*->\s*(?P<t>.+?)(\s+where\b.*)?$"),
    "swift": re.compile(r"\)\s*(async\s*)?(throws\s*)?->\s*(?P<t>.+?)(\s+where\b.*)?$"),
    "kotlin": re.compile(r"\)\s*:\s*(?P<t>[^=]+?)$"),
    "typescript": re.compile(r"\)\s*:\s*(?P<t>.+?)$"),
    "tsx": re.compile(r"\)\s*:\s*(?P<t>.+?)$"),
    "php": re.compile(r"\)\s*:\s*(?P<t>\??[\w\\|]+)$"),
}
_NO_RESULT = {"None", "void", "()", "Unit", "Void"}
_MOST_NAMES, _MOST_CALLEES = 8, 5


@dataclass(frozen=True)
class Ask:
    """A question about one chunk, with its answer and the spans that prove it.

    Attributes:
        reworded: the question in the wording that is never trained on, or "".
        quotes: verbatim in the chunk asked about, but for those of `elsewhere`.
        elsewhere: id of another document → the quotes that stand there, in order after `quotes`.
        reason, absence: why the answer holds, and why it cannot be given. `{id}` of a document
            stands for its number.
        unless: a row without these words in any document can say that the answer is not there.
        always: it has no meaning without its documents, or is a refusal itself.
    """

    kind: str
    question: str
    reworded: str
    final: str
    quotes: list[str]
    elsewhere: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    absence: str = ""
    unless: str = ""
    always: bool = False
    teacher: str | None = None

    @property
    def oracles(self) -> set[str]:
        """Ids of the documents, other than the chunk's own, that the answer needs."""
        return {document for document, _ in self.elsewhere}


class Subject:
    """A definition that is asked about, with what its code says; parsed when it is needed."""

    def __init__(self, chunk: Chunk, index: Index) -> None:
        self.chunk, self.index = chunk, index
        self.named = index.refer(chunk)

    @cached_property
    def facts(self) -> Facts | None:
        """Of Python code that stands alone."""
        return read_facts(self.chunk.text) if self.chunk.language == "python" else None

    @cached_property
    def sentence(self) -> str:
        """The first sentence of the documentation, where it says something; else ""."""
        found = first_sentence(self.chunk.docstring or "")
        telling = is_telling(found, self.chunk.symbol or "")
        return found if telling and find_span(found, self.chunk.text) else ""

    @cached_property
    def declared(self) -> str:
        """The signature as it stands in the text, or ""."""
        signature = self.chunk.signature or ""
        fits = 0 < len(signature) <= QUOTE_CHARS
        return find_span(signature, self.chunk.text) if fits else ""

    @cached_property
    def result(self) -> str:
        """The declared type of the result, or ""."""
        if self.facts is not None:
            found = self.facts.returns
        else:
            pattern = _RESULT.get(self.chunk.language)
            match = pattern.search(self.chunk.signature or "") if pattern else None
            found = match["t"].strip() if match else ""
        balanced = all(found.count(a) == found.count(b) for a, b in ("()", "[]", "{}"))
        usable = balanced and "\n" not in found and len(found) <= 80 and found not in _NO_RESULT
        return found if usable else ""

    @cached_property
    def raising(self) -> list[str]:
        """The verbatim `raise` statements, of long ones the first line."""
        statements = self.facts.raises.values() if self.facts else ()
        short = (s if len(s) <= QUOTE_CHARS else s.splitlines()[0] for s in statements)
        return [find_span(statement, self.chunk.text) for statement in short]

    def calling(self, name: str) -> str:
        """The verbatim statement (in other languages: line) that calls `name`, or ""."""
        statement = self.facts.calls.get(name, "") if self.facts else ""
        if statement:
            short = len(statement) <= QUOTE_CHARS
            return find_span(statement, self.chunk.text) if short else ""
        return calling_line(self.chunk.text, name)


def put(kind: str, rng: random.Random, subject: Subject, argument: str = "") -> tuple[str, str]:
    """A question of a kind, in one of its wordings and in the one that is never trained on."""

    def filled(wording: str) -> str:
        path = subject.chunk.path
        return wording.replace("{a}", argument).replace("{p}", path).replace("{s}", subject.named)

    return filled(rng.choice(WORDINGS[kind])), filled(UNSEEN[kind])


def ask(subject: Subject, rng: random.Random) -> Iterator[Ask]:
    """The questions about a definition that its own document answers, one of each kind."""
    chunk = subject.chunk
    for make in _MAKERS:
        for kind, argument, final, quotes in make(subject, rng):
            if final and quotes and all(quote and quote in chunk.text for quote in quotes):
                asked = put(kind, rng, subject, argument)
                # To refuse to write code would be a strange thing to learn.
                always = kind == "completion"
                yield Ask(kind, *asked, final, list(dict.fromkeys(quotes)), always=always)


_Found = Iterator[tuple[str, str, str, list[str]]]


def _purpose(subject: Subject, rng: random.Random) -> _Found:
    if subject.sentence:
        span = find_span(subject.sentence, subject.chunk.text)
        yield "purpose", "", subject.sentence, [span]
        if subject.index.described[subject.sentence] == 1:
            named = f"`{subject.chunk.symbol}`, in `{subject.chunk.path}`"
            yield "find", subject.sentence, named, [span]


def _signature(subject: Subject, rng: random.Random) -> _Found:
    chunk = subject.chunk
    plain = chunk.kind in ("function", "method")
    if plain and subject.declared and not _NO_PARAMETERS.search(chunk.signature or ""):
        yield "signature", "", chunk.signature or "", [subject.declared]


def _default(subject: Subject, rng: random.Random) -> _Found:
    if subject.facts and subject.facts.defaults:
        name = rng.choice(sorted(subject.facts.defaults))
        span, value = subject.facts.defaults[name]
        yield "default", name, value, [span]


def _returns(subject: Subject, rng: random.Random) -> _Found:
    if subject.result and subject.declared:
        yield "returns", "", subject.result, [subject.declared]


def _raises(subject: Subject, rng: random.Random) -> _Found:
    if subject.facts and subject.facts.raises:
        yield "raises", "", ", ".join(subject.facts.raises), subject.raising


def _where(subject: Subject, rng: random.Random) -> _Found:
    # With its file in the question there would be nothing left to ask.
    if subject.declared and subject.index.is_sole(subject.chunk):
        yield "where", "", subject.chunk.path, [subject.declared]


def _members(subject: Subject, rng: random.Random) -> _Found:
    text = subject.chunk.text
    methods = subject.facts.methods if subject.facts else {}
    if subject.chunk.kind == "implementation" and subject.chunk.language == "rust":
        lines = re.findall(r"^[ \t]*((?:pub\b.*?|async |const |unsafe )*fn (\w+).*)$", text, re.M)
        methods = {name: line.strip() for line, name in lines}
    if 1 < len(methods) <= _MOST_NAMES:
        yield "members", "", ", ".join(methods), list(methods.values())


def _completion(subject: Subject, rng: random.Random) -> _Found:
    facts = subject.facts
    if facts is None or not facts.body or ('"""' not in facts.head and "'''" not in facts.head):
        return
    body = find_span(facts.body, subject.chunk.text)
    code = [line for line in facts.body.splitlines() if line.strip(" \t#")]
    if len(body) <= QUOTE_CHARS and len(facts.head) <= 2 * QUOTE_CHARS and len(code) > 1:
        final = textwrap.dedent(facts.body).strip("\n")
        yield "completion", f"```python\n{facts.head}\n```", final, [body]


def _calls(subject: Subject, rng: random.Random) -> _Found:
    callees = subject.index.known_callees(subject.chunk)
    if not callees or len(callees) > _MOST_CALLEES:
        return
    text = subject.chunk.text
    lines = {f"`{c.symbol}`": subject.calling(last_name(c.symbol)) for c in callees}
    order = sorted(lines, key=lambda name: text.find(lines[name]))
    yield "calls", "", ", ".join(order), [lines[name] for name in order]


_MAKERS = (
    _purpose, _signature, _default, _returns, _raises, _where, _members, _completion, _calls,
)  # fmt: skip
