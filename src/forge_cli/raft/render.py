"""From a question and a context to an example record."""

from __future__ import annotations

from collections.abc import Sequence

from forge_cli.core.answer_form import ABSTAIN, render
from forge_cli.core.records import Answer, Chunk, Document, Example, Origin, Quote, content_id
from forge_cli.raft.questions import Ask


def answered(context: Sequence[Chunk], oracle: Chunk, asked: Ask) -> Example:
    """A row whose context holds the oracle document."""
    number = next(i for i, chunk in enumerate(context, 1) if chunk.id == oracle.id)
    answer = Answer(
        reason=f"`{oracle.symbol}` is defined in document [{number}].",
        quotes=[Quote(document=oracle.id, text=quote) for quote in asked.quotes],
        final=asked.final,
    )
    return _example(context, oracle, asked, answer)


def refused(context: Sequence[Chunk], oracle: Chunk, asked: Ask) -> Example:
    """A row without the oracle document: the right answer is that it is not there."""
    answer = Answer(reason=f"No document defines `{oracle.symbol}`.", final=ABSTAIN)
    return _example(context, oracle, asked, answer)


def _example(context: Sequence[Chunk], oracle: Chunk, asked: Ask, answer: Answer) -> Example:
    documents = [
        Document(
            id=chunk.id,
            path=chunk.path,
            symbol=chunk.symbol,
            text=chunk.text,
            oracle=chunk.id == oracle.id,
        )
        for chunk in context
    ]
    context_id = content_id(*(chunk.id for chunk in context))
    return Example(
        id=content_id(context_id, oracle.id, asked.kind, asked.question),
        context_id=context_id,
        documents=documents,
        question=asked.question,
        answer=answer,
        messages=render(documents, asked.question, answer),
        origin=Origin(
            kind=asked.kind, chunk=oracle.id, path=oracle.path, committed=oracle.committed
        ),
    )
