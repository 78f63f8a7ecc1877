"""Questions that more than one document answers: callers, tests, commits, two steps."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from forge_cli.core.records import Chunk
from forge_cli.raft.commits import newest
from forge_cli.raft.index import Index, last_name
from forge_cli.raft.questions import Ask, Subject, put
from forge_cli.raft.spans import calling_line, find_span

_MOST_CALLERS = 3


def relate(subject: Subject, shown: Sequence[Subject], rng: random.Random) -> Iterator[Ask]:
    """The questions about a definition that need the documents shown beside it."""
    for make in (_callers, _usage, _hop, _absent):
        yield from make(subject, shown, rng)


def about_commits(document: Chunk, index: Index, rng: random.Random) -> Iterator[Ask]:
    """The question that a document of commits answers."""
    line = newest(document)
    yield Ask(
        "change", *put("change", rng, Subject(document, index)), line, [line],
        reason=f"Document [{{{document.id}}}] lists the commits that touched the file.",
        absence=f"No document lists the commits of `{document.path}`.",
    )  # fmt: skip


def _callers(subject: Subject, shown: Sequence[Subject], rng: random.Random) -> Iterator[Ask]:
    """Who calls it, of the documents shown; nothing where one of them may or may not."""
    chunk, name = subject.chunk, last_name(subject.chunk.symbol)
    callers = {caller.id for caller in subject.index.callers.get(chunk.id, ())}
    callers |= {tester.id for tester in subject.index.testers.get(chunk.id, ())}
    found: list[tuple[Subject, str]] = []
    for other in shown:
        if other.chunk.id == chunk.id:
            continue
        if other.chunk.id in callers and (line := other.calling(name)):
            found.append((other, line))
        elif name in other.chunk.calls or calling_line(other.chunk.text, name):
            return
    if 0 < len(found) <= _MOST_CALLERS:
        names = ", ".join(f"`{other.chunk.symbol}`" for other, _ in found)
        numbers = " and ".join(f"[{{{other.chunk.id}}}]" for other, _ in found)
        yield Ask(
            "callers", *put("callers", rng, subject), names, [],
            elsewhere=tuple((other.chunk.id, line) for other, line in found),
            reason=f"{subject.named} is called in document {numbers}.",
            absence=f"No document calls {subject.named}.",
            unless=name,
        )  # fmt: skip


def _usage(subject: Subject, shown: Sequence[Subject], rng: random.Random) -> Iterator[Ask]:
    name = last_name(subject.chunk.symbol)
    testers = {tester.id for tester in subject.index.testers.get(subject.chunk.id, ())}
    for other in shown:
        if other.chunk.id in testers and (line := other.calling(name)):
            yield Ask(
                "usage", *put("usage", rng, subject), line, [],
                elsewhere=((other.chunk.id, line),),
                reason=f"The test in document [{{{other.chunk.id}}}] calls {subject.named}.",
                absence=f"No document holds a test that calls {subject.named}.",
                unless=name,
            )  # fmt: skip
            return


def _hop(subject: Subject, shown: Sequence[Subject], rng: random.Random) -> Iterator[Ask]:
    """Two steps: what it calls, and what the code of that one says."""
    callees = subject.index.known_callees(subject.chunk)
    if not callees or len(callees) != 1:
        return
    callee = next((other for other in shown if other.chunk.id == callees[0].id), None)
    if callee is None:
        return
    step = subject.calling(last_name(callee.chunk.symbol))
    facts = []
    if callee.sentence:
        span = find_span(callee.sentence, callee.chunk.text)
        facts.append(("hop_purpose", callee.sentence, [span]))
    if callee.chunk.kind != "class" and callee.result and callee.declared:
        facts.append(("hop_returns", callee.result, [callee.declared]))
    if callee.chunk.kind != "class" and callee.facts and callee.facts.raises:
        facts.append(("hop_raises", ", ".join(callee.facts.raises), callee.raising))
    if not step or not facts:
        return
    kind, final, quotes = rng.choice(facts)
    yield Ask(
        kind, *put(kind, rng, subject), f"`{callee.chunk.symbol}`: {final}", [step],
        elsewhere=tuple((callee.chunk.id, quote) for quote in quotes),
        reason=(
            f"Document [{{{subject.chunk.id}}}] calls `{callee.chunk.symbol}`, which document "
            f"[{{{callee.chunk.id}}}] defines."
        ),
    )  # fmt: skip


def _absent(subject: Subject, shown: Sequence[Subject], rng: random.Random) -> Iterator[Ask]:
    """A parameter that a neighbour has and this definition has not: the answer is a refusal."""
    if subject.facts is None or subject.facts.parameters is None or not subject.declared:
        return
    own = set(subject.facts.parameters)
    others = {
        name
        for other in shown
        if other.facts and other is not subject
        for name in other.facts.defaults
    } - own
    if others:
        name = rng.choice(sorted(others))
        yield Ask(
            "absent", *put("default", rng, subject, name), "", [],
            absence=f"{subject.named} in document [{{{subject.chunk.id}}}] has no parameter "
            f"`{name}`.",
            always=True,
        )  # fmt: skip
