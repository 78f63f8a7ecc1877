"""A model that says which of two answers is better: pairwise, each pair in both orders.

A judge prefers what stands first, or second (arXiv 2306.05685, section 3.3): a pair that it judges
otherwise when the places are swapped is a tie. What it says is read beside the metrics, and how
often both agree is told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.records import Example, Message
from forge_cli.evaluate.ask import Heard
from forge_cli.evaluate.asked import Question
from forge_cli.teachers import Completion, Teacher
from forge_cli.teachers.cache import Cached

_SYSTEM = (
    "You compare two answers to a question about code. The documents and a reference answer that "
    "is known to be right are shown. What counts, in this order: the answer says what the "
    "reference says; what it quotes stands in the documents; it says no more than was asked. "
    "Length and style do not count. End with one line: BETTER: A, BETTER: B, or BETTER: NEITHER."
)
_SAID = re.compile(r"BETTER:\s*\**\s*(A|B|NEITHER|TIE)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Judged:
    """What a judge made of two sides, by question.

    Attributes:
        wins: 1 where it prefers the second side, 0 where the first, 0.5 for a tie.
        swayed: pairs that it judged by their place, and so count as ties.
        unread: of its 2·n words, those that named no side.
    """

    wins: list[float]
    swayed: int
    unread: int


def judge(
    teacher: Teacher,
    questions: Sequence[Question],
    first: Heard,
    second: Heard,
    folder: Path,
    reporter: Reporter,
) -> Judged:
    """Have `teacher` compare the answers of two sides to the same questions.

    Args:
        questions: those of the two sides' answers, in their order.
        folder: keeps what it said, so that nothing is asked twice.

    Raises:
        ForgeError: it cannot be reached, or gives no answer to a pair.
    """
    texts = [(a.text, b.text) for a, b in zip(first.answers, second.answers, strict=True)]
    # Equal answers are a tie: a judge would only say where its bias lies.
    apart = [n for n, (a, b) in enumerate(texts) if a.strip() != b.strip()]
    prompts = []
    for n in apart:
        a, b = texts[n]
        prompts += [_prompt(questions[n].example, a, b), _prompt(questions[n].example, b, a)]
    said: list[str] = [""] * len(prompts)
    with reporter.task(f"{teacher.name}: judging", len(prompts)) as task:

        def keep(index: int, found: Completion) -> None:
            if found.error:
                raise ForgeError(
                    f"{teacher.name}: no judgement: {found.error}",
                    "run it again: what it said is kept",
                )
            said[index] = found.text
            task.advance(1)

        Cached(teacher, folder).complete(prompts, keep)
    wins, swayed, unread = [0.5] * len(questions), 0, 0
    for place, n in enumerate(apart):
        there, back = (_choice(text) for text in said[2 * place : 2 * place + 2])
        unread += (there is None) + (back is None)
        # Second in the first order, first in the second: the same side both times.
        if (there, back) == ("B", "A"):
            wins[n] = 1.0
        elif (there, back) == ("A", "B"):
            wins[n] = 0.0
        elif there == back and there in ("A", "B"):
            swayed += 1
    return Judged(wins, swayed, unread)


def agreement(wins: Sequence[float], differences: Sequence[float]) -> tuple[float, int]:
    """How often a judge and a metric prefer the same side, where both prefer one; and of how many.

    Args:
        differences: of the metric, second side less first; more is better.
    """
    both = [(w > 0.5, d > 0) for w, d in zip(wins, differences, strict=True) if w != 0.5 and d]
    return (sum(w == d for w, d in both) / len(both) if both else 0.0), len(both)


def _prompt(example: Example, a: str, b: str) -> list[Message]:
    documents = "\n\n".join(
        f"[{number}] {document.path}\n{document.text}"
        for number, document in enumerate(example.documents, 1)
    )
    shown = f"Documents:\n{documents}\n\n" if documents else ""
    asked = (
        f"{shown}Question: {example.question}\n\nReference: {example.answer.final}\n\n"
        f"Answer A:\n{a}\n\nAnswer B:\n{b}"
    )
    return [Message(role="system", content=_SYSTEM), Message(role="user", content=asked)]


def _choice(text: str) -> str | None:
    """A, B or "" (neither); None where nothing was chosen."""
    found = _SAID.findall(text)
    if not found:
        return None
    last = str(found[-1]).upper()
    return last if last in ("A", "B") else ""
