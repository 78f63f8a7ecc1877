"""What is asked: the questions, and the rows whose losses are taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Chunk, Example
from forge_cli.evaluate import humaneval
from forge_cli.evaluate.code_rows import completions, texts
from forge_cli.evaluate.conditions import QUESTIONS, put_under
from forge_cli.evaluate.repo_tests import RepoTests
from forge_cli.evaluate.retrieval import Retriever
from forge_cli.evaluate.sample import by_kind, spread
from forge_cli.models.sampling import Draw

_MAX_ANSWER = 160  # tokens
_TIMED = 12  # prompts whose answers are timed: enough for an interval, as they are alike


@dataclass(frozen=True)
class Question:
    """A row under a condition.

    Attributes:
        example: with the documents and the chat of that condition.
        draws: how its answers are drawn; none: one greedy answer.
    """

    condition: str
    example: Example
    draws: tuple[Draw, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What is put to every side.

    Attributes:
        questions: to answer. rows: of which losses are taken. timed: to answer by the clock.
    """

    questions: list[Question]
    rows: list[Question]
    timed: list[Question]

    @property
    def conditions(self) -> set[str]:
        """Those under which there is something to ask."""
        return {one.condition for one in (*self.questions, *self.rows, *self.timed)}

    @property
    def longest(self) -> int:
        """Most tokens of an answer: what a model still says after half as much again as the
        longest reference cannot mend it; a base that does not know when to stop would fill any
        limit."""
        rows = [row for row in self.rows if row.condition != "perplexity"]
        asked = [*self.questions, *rows, *self.timed]
        answers = [question.example.messages[-1].content for question in asked]
        characters = max(map(len, answers), default=0)
        return min(_MAX_ANSWER, max(32, round(1.5 * characters / 3)))


def choose(
    examples: Sequence[Example],
    chunks: Sequence[Chunk],
    conditions: Sequence[str],
    *,
    rows: int,
    answer_rows: int,
    condition_rows: int,
    seed: int,
    samples: int = 1,
    repo_tests: RepoTests | None = None,
    later: Sequence[Example] = (),
) -> Asked:
    """What `evaluate.run` asks with the same arguments.

    Args:
        repo_tests: finds and calibrates the rows of that condition, which needs it.

    Raises:
        ForgeError: no test rows, or none of them can be judged by the repository's tests.
    """
    seen, unseen = (spread(found, rows, seed) for found in by_kind(examples))
    test = [*seen, *unseen]
    if not test:
        raise ForgeError("no rows of split test", "run forge validate before forge train")
    retriever = Retriever(chunks) if chunks and "retrieved" in conditions else None
    questions: list[Question] = []
    for condition in (*QUESTIONS, "later", "completion", "humaneval", "repo_tests"):
        if condition not in conditions or (condition == "retrieved" and retriever is None):
            continue
        wanted = answer_rows if condition == "given" else min(answer_rows, condition_rows)
        if condition == "completion":
            found = completions(chunks, test, wanted, seed)
        elif condition == "humaneval":
            problems = humaneval.make_rows(wanted, seed)
            drawn = (humaneval.draws(problem, samples, seed) for problem in problems)
            questions += map(Question, repeat(condition), problems, drawn)
            continue
        elif condition == "repo_tests":
            assert repo_tests is not None, "the repository's tests need the repository"
            found = repo_tests.make_rows(chunks, test, wanted, seed)
        else:
            own = {"unseen": unseen, "later": spread(later, rows, seed)}.get(condition, seen)
            under = (put_under(condition, example, retriever) for example in own[:answer_rows])
            found = [example for example in under if example is not None][:wanted]
        questions += [Question(condition, example) for example in found]
    losses = []
    if "given" in conditions:
        losses += [Question("given", example) for example in seen]
    if "unseen" in conditions:
        losses += [Question("unseen", example) for example in unseen]
    if "later" in conditions:
        losses += [Question("later", example) for example in spread(later, rows, seed)]
    if "perplexity" in conditions:
        losses += [Question("perplexity", row) for row in texts(chunks, test, rows, seed)]
    timed = [Question("latency", example) for example in seen[:_TIMED]]
    return Asked(questions, losses, timed if "latency" in conditions else [])
