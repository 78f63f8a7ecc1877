"""The same question under several conditions (RAFT, arXiv 2403.10131, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from forge_cli.core.answer_form import ABSTAIN, render
from forge_cli.core.config import Condition
from forge_cli.core.records import Answer, Document, Example, Message
from forge_cli.evaluate.retrieval import Retriever

CONDITIONS: tuple[Condition, ...] = get_args(Condition)
# Of these, what does not ask the questions of the run's own test rows.
OTHER = ("completion", "perplexity", "humaneval", "repo_tests", "later", "latency")
QUESTIONS = tuple(condition for condition in CONDITIONS if condition not in OTHER)

CLOSED_BOOK = (
    "Answer the question about the repository from what you know of it. Write the answer alone."
)


def put_under(
    condition: Condition, example: Example, retriever: Retriever | None = None
) -> Example | None:
    """The row as it is asked under a condition; None where it makes no sense there.

    given: as made: the right documents among distractors, or distractors alone.
    reworded: the same, the question in a wording that no row trains on.
    unseen: as made; such rows are of kinds that no row trains on (see `evaluate.sample`).
    oracle: the right documents alone. distractors: without them, so that abstaining is right.
    closed_book: no documents; the answer is to be known.
    completion: no question of the data: a held-out definition to complete (`evaluate.code_rows`).
    perplexity: neither: the loss of the text of held-out files; nothing is generated.
    humaneval: neither: a problem of HumanEval, whose answer is executed (`evaluate.humaneval`).
    repo_tests: as completion, but the repository's own tests run on it (`evaluate.repo_tests`).
    later: as made; such rows are about code that was committed after training.
    latency: as made; nothing is scored but the time that the answer takes.
    retrieved: the best documents for the question, as many as were given; where none of them
    holds the answer it may still be found, so the reference stays.
    """
    oracles = [document for document in example.documents if document.oracle]
    if condition in ("given", "unseen", "later", "latency"):
        return example
    if condition == "reworded":
        return _asked(example, example.reworded) if example.reworded else None
    if not oracles:
        return None
    if condition == "oracle":
        return _with(example, oracles, example.answer)
    if condition == "distractors":
        others = [document for document in example.documents if not document.oracle]
        refusal = Answer(reason="No document holds the answer.", final=ABSTAIN)
        return _with(example, others, refusal) if others else None
    if condition == "closed_book":
        asked = [
            Message(role="system", content=CLOSED_BOOK),
            Message(role="user", content=f"Question: {example.question}"),
            Message(role="assistant", content=example.answer.final),
        ]
        return example.model_copy(update={"documents": [], "messages": asked})
    assert retriever is not None, "retrieved documents need a retriever"
    ids = [document.id for document in oracles]
    found = retriever.find(example.question, len(example.documents), ids)
    return _with(example, found, example.answer)


def _asked(example: Example, question: str) -> Example:
    """The same row with another question."""
    chat = render(example.documents, question, example.answer)
    return example.model_copy(update={"question": question, "messages": chat})


def _with(example: Example, documents: Sequence[Document], answer: Answer) -> Example:
    chat = render(documents, example.question, answer)
    return example.model_copy(
        update={"documents": list(documents), "answer": answer, "messages": chat}
    )


def with_examples(messages: Sequence[Message], shown: Sequence[Example]) -> list[Message]:
    """The chat with worked examples, as turns of their own, before its question."""
    turns = [turn for example in shown for turn in example.messages[1:]]
    return [messages[0], *turns, *messages[1:]]


def choose_examples(train: Sequence[Example]) -> list[Example]:
    """Two rows of the training data to show: one with the answer, one that abstains.

    The shortest that quote once, so that they cost little of the context; by id among equals.
    """
    chosen = []
    for holds in (True, False):
        fitting = [
            e
            for e in train
            if any(d.oracle for d in e.documents) == holds and len(e.answer.quotes) == int(holds)
        ]
        if fitting:
            chosen.append(min(fitting, key=lambda e: (len(e.messages[1].content), e.id)))
    return chosen
