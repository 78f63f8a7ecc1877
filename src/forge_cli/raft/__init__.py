"""Make RAFT examples from chunks: `raft.run(...)` (arXiv 2403.10131)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Chunk, Example, Verdict
from forge_cli.raft.asking import Asking
from forge_cli.raft.commits import is_commits
from forge_cli.raft.contexts import Context, form_contexts, lacks
from forge_cli.raft.index import Index
from forge_cli.raft.questions import Ask, Subject, ask
from forge_cli.raft.relations import about_commits, relate
from forge_cli.raft.render import answered, refused
from forge_cli.raft.teach import teach
from forge_cli.teachers import Teacher


def run(
    chunks: Iterable[Chunk],
    *,
    distractors: int = 3,
    oracle_p: float = 0.8,
    questions: int = 4,
    seed: int = 0,
    teacher: Teacher | None = None,
    teacher_price: Sequence[float] = (),
    only: Collection[str] | None = None,
    beside: Collection[str] | None = None,
    on_reject: Callable[[Verdict], None] | None = None,
    reporter: Reporter = SILENT,
) -> Iterator[Example]:
    """Yield examples, context by context; equal input and seed give equal bytes.

    Args:
        distractors: documents beside the oracle.
        oracle_p: share of the rows whose context holds the oracle document; the other
            rows show a context without it and abstain.
        questions: per definition, at the most; kinds that are rare so far go first.
        teacher: writes as many questions again about each definition; those that its document
            bears out are taken.
        teacher_price: of a million prompt and a million completion tokens, to tell the cost.
        only: ids of the chunks to ask about (None: all). They stand together where they can, so
            that few documents are read for many questions; it may be that none can be asked about.
        beside: ids of other chunks that may be shown with them (None: all). Who calls whom is
            known from all chunks in any case.
        on_reject: gets a verdict for what the teacher wrote in vain.

    Raises:
        ForgeError: no chunk is a definition that can be asked about, or the teacher is silent.
    """
    mined = list(chunks)
    index = Index(mined)
    askable = [chunk for chunk in mined if index.is_askable(chunk)]
    if not askable:
        raise ForgeError(
            f"none of {len(mined)} chunks is a function, method or class outside the tests",
            "mine a repository that holds code",
        )
    by_id = {chunk.id: chunk for chunk in mined}
    asking = Asking(askable, only, beside)
    contexts = form_contexts(
        askable, index, distractors + 1, random.Random(f"{seed}/contexts"), asking
    )
    others = _elsewhere(contexts)
    taught: dict[str, list[Ask]] = {}
    if teacher is not None and asking.about:
        wanted = [chunk for chunk in askable if chunk.id in asking.about]
        taught = teach(
            wanted, index, teacher, questions=questions, seed=seed, on_reject=on_reject,
            reporter=reporter,
        )  # fmt: skip
        if len(teacher_price) == 2:
            reporter.note(f"{teacher.name} cost {teacher.usage.cost(teacher_price):.4f}")
    kinds: Counter[str] = Counter()
    with reporter.task("asking", len(contexts)) as task:
        for number, context in enumerate(contexts):
            task.advance()
            if not asking.is_asked(context.chunks):
                continue
            rng = random.Random(f"{seed}/{number}")
            chosen = list(_choose(context, index, questions, kinds, rng, asking))
            more = [(c, asked) for c in context.chunks for asked in taught.get(c.id, ())]
            kinds.update(asked.kind for _, asked in more)
            for about, asked in chosen + more:
                away = None
                if not asked.always and rng.random() >= oracle_p:
                    oracles = [about, *(by_id[i] for i in asked.oracles if i in by_id)]
                    away = _without(oracles, about, asked, others[number], rng, asking)
                if away:
                    yield refused(away.chunks, about, asked)
                else:
                    make = answered if asked.final else refused
                    yield make(context.chunks, about, asked)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    reporter.note(
        f"{kinds.total()} examples from {len(asking.about)} definitions in "
        f"{sum(asking.is_asked(c.chunks) for c in contexts)} contexts "
        f"({counts})"
    )


def _choose(
    context: Context, index: Index, limit: int, kinds: Counter[str], rng: random.Random,
    asking: Asking,
) -> Iterator[tuple[Chunk, Ask]]:  # fmt: skip
    """Up to `limit` questions about each document of a context, rare kinds first; counted."""
    subjects = {c.id: Subject(c, index) for c in context.chunks if not is_commits(c)}
    for chunk in context.chunks:
        if is_commits(chunk) and chunk.path in asking.paths:
            found = list(about_commits(chunk, index, rng))
        elif chunk.id in asking.about:
            subject = subjects[chunk.id]
            found = [*ask(subject, rng), *relate(subject, list(subjects.values()), rng)]
        else:
            continue
        rng.shuffle(found)
        found.sort(key=lambda asked: kinds[asked.kind])
        for asked in found[:limit]:
            # Every definition stands somewhere: that is asked no oftener than anything else.
            most = max((count for kind, count in kinds.items() if kind != "where"), default=0)
            if asked.kind != "where" or kinds["where"] <= most:
                kinds[asked.kind] += 1
                yield chunk, asked


def _without(
    oracles: list[Chunk], about: Chunk, asked: Ask, contexts: list[Context], rng: random.Random,
    asking: Asking,
) -> Context | None:  # fmt: skip
    """One of `contexts`, drawn at random, that does not hold the answer."""
    drawn = rng.sample(contexts, len(contexts))
    # Documents that are read anyway cost nothing more.
    drawn.sort(key=lambda c: not asking.is_asked(c.chunks))
    return next((c for c in drawn if lacks(c, about, oracles, asked.unless)), None)


def _elsewhere(contexts: list[Context]) -> list[list[Context]]:
    """For each context the others of its pool."""
    pools: dict[int, list[Context]] = {}
    for context in contexts:
        pools.setdefault(context.pool, []).append(context)
    return [[o for o in pools[c.pool] if o is not c] for c in contexts]


__all__ = ["run"]
