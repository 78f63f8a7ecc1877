"""Scores of all that a side answered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from forge_cli.evaluate import humaneval
from forge_cli.evaluate.ask import Heard
from forge_cli.evaluate.asked import Question
from forge_cli.evaluate.metrics import score
from forge_cli.evaluate.repo_tests import RepoTests


def score_answers(
    questions: Sequence[Question], heard: Heard, tests: RepoTests | None
) -> list[dict[str, float]]:
    """Of each answer; those that are run wait for their processes side by side.

    Where a question has many answers, what they come to together.
    """

    def scored(question: Question, text: str) -> dict[str, float]:
        if question.condition == "repo_tests" and tests is not None:
            return tests.score(question.example, text)
        return score(question.example, text)

    answers = [heard.drawn.get(n, [answer]) for n, answer in enumerate(heard.answers)]
    repeated = [q for q, own in zip(questions, answers, strict=True) for _ in own]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(scored, repeated, [answer.text for own in answers for answer in own])
        scores = [list(islice(found, len(own))) for own in answers]
    return [
        humaneval.estimate([one["pass@1"] == 1 for one in own]) if n in heard.drawn else own[0]
        for n, own in enumerate(scores)
    ]
