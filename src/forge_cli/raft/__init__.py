"""Make RAFT examples from chunks: `raft.run(...)` (arXiv 2403.10131)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Chunk, Example
from forge_cli.raft.contexts import Context, form_contexts
from forge_cli.raft.questions import ask, callees, is_askable
from forge_cli.raft.render import answered, refused


def run(
    chunks: Iterable[Chunk],
    *,
    distractors: int = 3,
    oracle_p: float = 0.8,
    questions: int = 4,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> Iterator[Example]:
    """Yield examples, context by context; equal input and seed give equal bytes.

    Args:
        distractors: documents beside the oracle.
        oracle_p: share of the rows whose context holds the oracle document; the other
            rows show a context without it and abstain.
        questions: per definition, at the most.

    Raises:
        ForgeError: no chunk is a definition that can be asked about.
    """
    mined = list(chunks)
    askable = [chunk for chunk in mined if is_askable(chunk)]
    if not askable:
        raise ForgeError(
            f"none of {len(mined)} chunks is a function, method or class outside the tests",
            "mine a repository that holds code",
        )
    called = callees(mined)
    contexts = form_contexts(askable, distractors + 1, random.Random(f"{seed}/contexts"))
    others = _elsewhere(contexts)
    rows = 0
    with reporter.task("asking", len(contexts)) as task:
        for number, context in enumerate(contexts):
            rng = random.Random(f"{seed}/{number}")
            for chunk in context.chunks:
                own = called.get((chunk.path, chunk.symbol or ""), set())
                for asked in ask(chunk, own, questions, rng):
                    away = others[number]
                    if rng.random() < oracle_p or not away:
                        yield answered(context.chunks, chunk, asked)
                    else:
                        yield refused(rng.choice(away).chunks, chunk, asked)
                    rows += 1
            task.advance()
    reporter.note(f"{rows} examples from {len(askable)} definitions in {len(contexts)} contexts")


def _elsewhere(contexts: list[Context]) -> list[list[Context]]:
    """For each context the others of its pool."""
    return [[o for o in contexts if o.pool == c.pool and o is not c] for c in contexts]


__all__ = ["run"]
