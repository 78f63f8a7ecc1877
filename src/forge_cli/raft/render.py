"""From a question and a context to an example record."""

from __future__ import annotations

from collections.abc import Sequence

from forge_cli.core.answer_form import ABSTAIN, render
from forge_cli.core.records import Answer, Chunk, Document, Example, Origin, Quote, content_id
from forge_cli.raft.questions import Ask


def answered(context: Sequence[Chunk], about: Chunk, asked: Ask) -> Example:
    """A row whose context holds the documents that answer."""
    quotes = [Quote(document=about.id, text=quote) for quote in asked.quotes]
    quotes += [Quote(document=document, text=quote) for document, quote in asked.elsewhere]
    reason = asked.reason or f"`{about.symbol}` is defined in document [{{{about.id}}}]."
    answer = Answer(reason=_numbered(reason, context), quotes=quotes, final=asked.final)
    return _example(context, about, asked, answer)


def refused(context: Sequence[Chunk], about: Chunk, asked: Ask) -> Example:
    """A row whose documents do not hold the answer, which is to say so."""
    absence = asked.absence or f"No document defines `{about.symbol}`."
    answer = Answer(reason=_numbered(absence, context), final=ABSTAIN)
    return _example(context, about, asked, answer)


def _numbered(text: str, context: Sequence[Chunk]) -> str:
    """The text with the numbers of the documents that it names by `{id}`."""
    for number, chunk in enumerate(context, 1):
        text = text.replace(f"{{{chunk.id}}}", str(number))
    return text


def _example(context: Sequence[Chunk], about: Chunk, asked: Ask, answer: Answer) -> Example:
    oracles = {quote.document for quote in answer.quotes}
    documents = [
        Document(
            id=chunk.id,
            path=chunk.path,
            symbol=chunk.symbol,
            text=chunk.text,
            oracle=chunk.id in oracles,
        )
        for chunk in context
    ]
    context_id = content_id(*(chunk.id for chunk in context))
    return Example(
        id=content_id(context_id, about.id, asked.kind, asked.question),
        context_id=context_id,
        documents=documents,
        question=asked.question,
        reworded=asked.reworded or None,
        answer=answer,
        messages=render(documents, asked.question, answer),
        origin=Origin(
            kind=asked.kind,
            chunk=about.id,
            path=about.path,
            teacher=asked.teacher,
            committed=about.committed,
        ),
    )
