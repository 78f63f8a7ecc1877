"""One question about a repository, answered from what was found: `ask.run(...)`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forge_cli.ask.answerers import Answerer
from forge_cli.ask.quotes import Checked, Located, as_document, check
from forge_cli.core.answer_form import SYSTEM, show_documents
from forge_cli.core.errors import UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Chunk, Message


@dataclass(frozen=True)
class Reply:
    """What was asked and answered.

    Attributes:
        documents: as they were shown, [1] first.
        messages: the prompt. written: the answer as the model wrote it. checked: what of it holds.
        seconds: that the answer took, without loading the model.
    """

    question: str
    documents: list[Chunk]
    messages: list[Message]
    written: str
    checked: Checked
    model: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For programs: struck quotes are apart, and stand in no other field as quotes."""
        found = self.checked
        numbers = {chunk.id: number for number, chunk in enumerate(self.documents, 1)}
        return {
            "question": self.question,
            "answer": found.answer,
            "final": found.final,
            "abstained": found.abstained,
            "quotes": [
                {
                    "path": quote.path, "start_line": quote.start_line,
                    "end_line": quote.end_line, "text": quote.text, "document": quote.number,
                }
                for quote in found.quotes
            ],
            "struck": list(found.struck),
            "documents": [
                {
                    "document": numbers[c.id], "path": c.path, "symbol": c.symbol,
                    "start_line": c.start_line, "end_line": c.end_line,
                }
                for c in self.documents
            ],
            "model": self.model,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip


def run(
    question: str, found: Sequence[Chunk], answerer: Answerer, *, reporter: Reporter = SILENT
) -> Reply:
    """Put a question as training does, and check each quote of the answer byte for byte.

    Args:
        found: what is shown, the likeliest first. The last ones are left out where the model has
            no room for all.

    Raises:
        UsageError: the question is empty, too long or not text. ForgeError: there is no answer.
    """
    question = checked_question(question)
    shown = list(found)
    messages = prompt(shown, question)
    while not answerer.has_room(messages):
        if len(shown) == 1:
            raise UsageError(
                f"{answerer.name} has no room for the question and a document",
                "ask it in fewer words",
            )
        shown.pop()
        messages = prompt(shown, question)
    if len(shown) < len(found):
        reporter.note(f"{answerer.name} has room for {len(shown)} of {len(found)} documents")
    started = time.monotonic()
    written = answerer.answer(messages, [as_document(chunk).text for chunk in shown])
    seconds = time.monotonic() - started
    if not written.whole:
        reporter.warn(f"the answer was cut off after {written.tokens} tokens")
    checked = check(written.text, shown)
    return Reply(question, shown, messages, written.text, checked, answerer.name, seconds)


def checked_question(question: str) -> str:
    """The question without white space around it.

    Raises:
        UsageError: nothing is left, or it is not text.
    """
    try:
        question.encode()
    except UnicodeEncodeError:
        raise UsageError("the question is not UTF-8", "write it in UTF-8") from None
    if not question.strip():
        raise UsageError("the question is empty", 'ask for example: forge ask "What does f do?"')
    return question.strip()


def prompt(shown: Sequence[Chunk], question: str) -> list[Message]:
    """The chat up to the answer, as `core.answer_form.render` makes it."""
    documents = [as_document(chunk) for chunk in shown]
    return [
        Message(role="system", content=SYSTEM),
        Message(role="user", content=show_documents(documents, question)),
    ]


__all__ = ["Checked", "Located", "Reply", "checked_question", "prompt", "run"]
