"""HumanEval as rows: what a model could do before, and may have forgotten (arXiv 2107.03374)."""

from __future__ import annotations

import random
import re
import secrets
import sys
from collections.abc import Sequence

from forge_cli.core.errors import UsageError
from forge_cli.core.humaneval import Problem, is_available, problems
from forge_cli.core.records import Answer, Example, Message, Origin
from forge_cli.evaluate.sandbox import Limits, run_contained, why_not
from forge_cli.evaluate.statistics.rates import pass_at_k
from forge_cli.models.sampling import Draw

_SYSTEM = "You write Python. Complete the function. Write the whole function in a code fence."
_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_LIMITS = Limits(seconds=10.0, cpu_seconds=5.0, memory_bytes=1 << 30, processes=8)
# Where many answers are drawn: the paper's choice for large k. One for all k, so that what is drawn
# once gives each of them (the paper draws again, at 0.2, for pass@1).
TEMPERATURE = 0.8
# The k of pass@k, each measured where there are as many samples.
_TRIES = (1, 10, 100)
# What does not belong to the body any more, where a model goes on after it.
_STOPS = re.compile(r"^(?:class |def |#|if __name__|print\(|@|assert )", re.MULTILINE)


def check_ready(*, execute: bool) -> None:
    """Refuse where the problems cannot be run, before a model is asked.

    Raises:
        UsageError: code may not be executed, or cannot be contained, or there are no problems.
    """
    if not execute:
        raise UsageError(
            "humaneval runs what the models write", "allow it with --execute: it is contained"
        )
    if not is_available():
        raise UsageError("humaneval: no problems", "pip install 'forge-cli[decontaminate]'")
    if why := why_not():
        raise UsageError(f"humaneval: code cannot be contained here: {why}", "leave it out")


def make_rows(limit: int, seed: int) -> list[Example]:
    """Up to `limit` problems, drawn by seed; each is a cluster of its own."""
    chosen = list(problems().values())
    random.Random(f"{seed}/humaneval").shuffle(chosen)
    return [_row(problem) for problem in chosen[:limit]]


def _row(problem: Problem) -> Example:
    asked = f"```python\n{problem.prompt.rstrip()}\n```"
    answer = f"```python\n{problem.prompt}{problem.solution.rstrip()}\n```"
    chat = [("system", _SYSTEM), ("user", asked), ("assistant", answer)]
    return Example(
        id=problem.task_id,
        context_id=problem.task_id,
        documents=[],
        question=asked,
        answer=Answer(reason="", final=answer),
        messages=[Message(role=role, content=text) for role, text in chat],  # type: ignore[arg-type]
        origin=Origin(kind="humaneval", chunk=problem.task_id, path=problem.task_id),
        split="test",
    )


def draws(example: Example, samples: int, seed: int) -> tuple[Draw, ...]:
    """How the answers to a problem are drawn; none where one greedy answer is asked for.

    Draws do not depend on the side: what two models answer alike, they draw alike.
    """
    if samples == 1:
        return ()
    return tuple(Draw(TEMPERATURE, seed, example.id, number) for number in range(samples))


def estimate(passed: Sequence[bool]) -> dict[str, float]:
    """pass@k of a problem from its samples, unbiased, for each k of 1, 10 and 100 that they allow.

    Args:
        passed: whether each sample passes.

    Returns:
        pass@k, between 0 and 1; and the counts `correct` and `samples`, for readers.
    """
    n, correct = len(passed), sum(passed)
    found: dict[str, float] = {f"pass@{k}": pass_at_k(n, correct, k) for k in _TRIES if k <= n}
    return found | {"correct": correct, "samples": n}


def passes(example: Example, text: str) -> dict[str, float]:
    """pass@1 of one answer: 1 where the problem's tests pass on it, run contained."""
    problem = problems()[example.origin.chunk]
    # The end is told by a word that the answer cannot know, or it could pass by leaving early.
    word = secrets.token_hex(8)
    program = (
        f"{_function(problem, text)}\n\n{problem.test}\n\n"
        f"check({problem.entry_point})\nprint({word!r})\n"
    )
    done = run_contained(
        [sys.executable, "-I", "task.py"], files={"task.py": program}, limits=_LIMITS
    )
    return {"pass@1": float(done.exit_code == 0 and done.stdout.endswith(f"{word}\n"))}


def _function(problem: Problem, text: str) -> str:
    """The program that an answer means: a whole function, or the body of the one asked for."""
    fenced = _FENCE.search(text)
    code = fenced.group(1) if fenced else text
    if re.search(rf"^def {re.escape(problem.entry_point)}\b", code, re.MULTILINE):
        # What the prompt imports and defines before it may be left out of the answer.
        before = problem.prompt[: problem.prompt.rindex(f"def {problem.entry_point}")]
        return f"{before}\n{code}"
    stop = _STOPS.search(code)
    return problem.prompt + (code[: stop.start()] if stop else code)
