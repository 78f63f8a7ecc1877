"""Rows that repeat or contradict one another. Each check keeps what it has seen."""

from __future__ import annotations

from collections.abc import Sequence

from forge_cli.core.answer_form import ABSTAIN, write_answer
from forge_cli.core.records import Example
from forge_cli.validate.form import Check
from forge_cli.validate.near import near_pairs

_NEAR = 0.9
# What these ask is asked of the documents shown, so the answer changes with them.
_OF_CONTEXT = {"callers", "usage"}


def unseen() -> Check:
    """The same question over the same documents was not there before."""
    seen: set[tuple[str, str]] = set()

    def check(example: Example) -> str | None:
        key = (example.context_id, _plain(example.question))
        if key in seen:
            return "the same question over the same documents stands before it"
        seen.add(key)
        return None

    return check


def consistent() -> Check:
    """The same question was not answered otherwise before (a refusal is no other answer)."""
    answers: dict[str, str] = {}

    def check(example: Example) -> str | None:
        final = " ".join(example.answer.final.split())
        if example.answer.final == ABSTAIN or example.origin.kind in _OF_CONTEXT:
            return None
        before = answers.setdefault(_plain(example.question), final)
        return None if before == final else f"the same question was answered {before[:60]!r}"

    return check


def near_duplicates(examples: Sequence[Example]) -> dict[str, str]:
    """Rows whose question and answer are 0.9 alike to an earlier row's: id → that one's id."""
    texts = [f"{e.question}\n{write_answer(e.answer)}" for e in examples]
    found: dict[str, str] = {}
    for later, earlier, _ in near_pairs(texts, _NEAR):
        a, b = examples[later], examples[earlier]
        # Two refusals differ in little more than a name, and are two lessons all the same.
        if a.answer.final != ABSTAIN and a.origin.chunk == b.origin.chunk and b.id not in found:
            found.setdefault(a.id, b.id)
    return found


def _plain(question: str) -> str:
    return " ".join(question.lower().split())
