"""The RAFT answer form: how documents are shown, how an answer is written, and read back.

Form of arXiv 2403.10131 (fig. 3): a reason that quotes the documents between
##begin_quote## and ##end_quote##, then the answer. The system prompt describes it, so a
base model that never trained is asked for the same thing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from forge_cli.core.records import Answer, Document, Message, Quote

ABSTAIN = "The documents do not contain the answer."

SYSTEM = (
    "Answer the question from the numbered documents. Write:\n"
    "##Reason: which document holds the answer, then the evidence copied from it word for "
    "word between ##begin_quote## and ##end_quote##.\n"
    "##Answer: the answer alone.\n"
    f"If no document holds it, quote nothing and write: ##Answer: {ABSTAIN}"
)

BEGIN, END = "##begin_quote##", "##end_quote##"

_QUOTE = re.compile(r"##begin_quote##\n?(.*?)\n?##end_quote##", re.DOTALL)
# The same, and a quote that nothing closes: up to the answer, or to the end.
_ANY_QUOTE = re.compile(_QUOTE.pattern + r"|##begin_quote##\n?(.*?)(?=\n?##Answer:|\Z)", re.DOTALL)


def show_documents(documents: Sequence[Document], question: str) -> str:
    """The user's turn: numbered documents, then the question.

    The question comes last, so rows of one context share all tokens before it.
    """
    shown = "\n\n".join(
        f"[{number}] {_label(document)}\n{document.text.strip(chr(10))}"
        for number, document in enumerate(documents, 1)
    )
    return f"{shown}\n\nQuestion: {question}"


def _label(document: Document) -> str:
    """Path and symbol: a method's text alone does not say which class it belongs to."""
    return f"{document.path}: {document.symbol}" if document.symbol else document.path


def write_answer(answer: Answer) -> str:
    """The assistant's turn."""
    quotes = "".join(f"\n##begin_quote##\n{q.text}\n##end_quote##" for q in answer.quotes)
    return f"##Reason: {answer.reason}{quotes}\n##Answer: {answer.final}"


def read_answer(text: str) -> Answer:
    """What a model wrote, as far as it kept to the form; quotes name no document.

    Text without ##Answer: is taken as the answer itself, so a model that does not know
    the form still gets credit for what it says.
    """
    quotes = [Quote(document="", text=found) for found in _QUOTE.findall(text) if found.strip()]
    before, mark, after = text.partition("##Answer:")
    reason = _QUOTE.sub("", before.removeprefix("##Reason:")).strip() if mark else ""
    return Answer(reason=reason, quotes=quotes, final=(after if mark else text).strip())


def parts_of(text: str) -> list[tuple[str, int, int]]:
    """("reason" | "quote" | "answer", start, end) of a written answer, in order, without gaps.

    A quote's marks belong to the quote; `##Answer:` begins the answer.
    """
    border = text.rfind("##Answer:")
    border = len(text) if border < 0 else border
    parts, at = [], 0
    for found in _QUOTE.finditer(text, 0, border):
        parts += [("reason", at, found.start()), ("quote", found.start(), found.end())]
        at = found.end()
    parts += [("reason", at, border), ("answer", border, len(text))]
    return [part for part in parts if part[1] < part[2]]


def quote_spans(text: str) -> list[tuple[bool, str]]:
    """(is a quote, its text) of a written answer, in order, the marks left out.

    Unlike `read_answer` it takes what nothing closes for a quote too: it was meant as one.
    """
    spans, at = [], 0
    for found in _ANY_QUOTE.finditer(text):
        quote = found[1] if found[1] is not None else found[2]
        spans += [(False, text[at : found.start()]), (True, quote)]
        at = found.end()
    return [*spans, (False, text[at:])]


def is_open(text: str) -> bool:
    """Whether a written answer begins a quote that nothing closes."""
    return BEGIN in _QUOTE.sub("", text)


def is_abstention(final: str) -> bool:
    """Whether an answer says that the documents do not hold it."""
    words = final.lower()
    return "not contain" in words or "do not hold" in words or "not in the documents" in words


def render(documents: Sequence[Document], question: str, answer: Answer) -> list[Message]:
    """The whole chat of one example, exactly what trains."""
    return [
        Message(role="system", content=SYSTEM),
        Message(role="user", content=show_documents(documents, question)),
        Message(role="assistant", content=write_answer(answer)),
    ]
