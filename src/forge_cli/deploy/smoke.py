"""A few questions to the served model, before anybody else asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from forge_cli.core.errors import GateFailed
from forge_cli.core.events import Reporter
from forge_cli.core.records import Message

_TOKENS = 256  # a quote of some lines, and the answer
# Of the questions that the trained model is known to answer, a file of fewer bits may miss some.
_SHARE = 0.5


@dataclass(frozen=True)
class Question:
    """A chat that ends in a question.

    Args:
        expected: texts that a right answer holds, such as its quotes; none: any answer will do.
    """

    messages: Sequence[Message]
    expected: tuple[str, ...] = ()


HELLO = Question((Message(role="user", content="Say hello."),))


class Chats(Protocol):
    """A server that answers: `deploy.ollama.Server`, or another in its place."""

    def chat(
        self, name: str, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]
    ) -> str:
        """The whole answer to a chat of the model under `name`."""


@dataclass(frozen=True)
class SmokeAnswer:
    """One smoke question as the served model answered it."""

    question: str
    expected: tuple[str, ...]
    answer: str

    @property
    def passed(self) -> bool:
        """Whether there is an answer and each expected text stands in it."""
        return bool(self.answer.strip()) and all(text in self.answer for text in self.expected)


def ask(
    server: Chats, name: str, questions: Sequence[Question], system: str, reporter: Reporter
) -> tuple[SmokeAnswer, ...]:
    """Ask the model under `name`, greedily; it must answer, and mostly hold what is expected.

    A system text that is the model's own is left to the server to put in.

    Raises:
        GateFailed: an empty answer, or fewer than half of those with expected texts hold them.
        ForgeError: the server fails.
    """
    options = {"temperature": 0.0, "seed": 0, "num_predict": _TOKENS}
    answers = []
    with reporter.task("smoke", total=len(questions)) as task:
        for question in questions:
            turns = [{"role": m.role, "content": m.content} for m in question.messages]
            if turns[0] == {"role": "system", "content": system}:
                turns = turns[1:]
            text = server.chat(name, turns, options)
            answers.append(SmokeAnswer(turns[-1]["content"], question.expected, text))
            task.advance()
    _judge(name, answers, reporter)
    return tuple(answers)


def _judge(name: str, answers: Sequence[SmokeAnswer], reporter: Reporter) -> None:
    if any(not answer.answer.strip() for answer in answers):
        raise GateFailed(
            f"{name}: answers a smoke question with nothing",
            "the model that was served before still is; see: forge eval",
        )
    known = [answer for answer in answers if answer.expected]
    passed = sum(answer.passed for answer in known)
    if passed < _SHARE * len(known):
        missing = next(a.expected[0] for a in known if not a.passed)
        raise GateFailed(
            f"{name}: {passed} of {len(known)} smoke answers hold what they should; one lacks "
            f"{missing[:80]!r}",
            "the model that was served before still is; see what the trained one says: forge eval",
        )
    if known:
        reporter.note(f"smoke: {passed} of {len(known)} answers hold the expected quotes")


__all__ = ["HELLO", "Question", "SmokeAnswer", "ask"]
