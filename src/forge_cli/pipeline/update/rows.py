"""The rows of an update: new ones about what changed, and old ones that are still true."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from forge_cli.core.config import Settings
from forge_cli.core.events import Reporter
from forge_cli.core.records import Chunk, Example, Verdict
from forge_cli.pipeline.data import make_examples, validated
from forge_cli.pipeline.update.lineage import Lineage, still_true, texts_of, told_by
from forge_cli.pipeline.update.plan import AS_SPLIT, USES, Plan


@dataclass(frozen=True)
class Rows:
    """What an update is trained and judged on.

    Attributes:
        examples: all of it, split. new: ids of the test rows about new code.
        earlier: what runs of the lineage trained on, and this one does not.
        fresh, replayed: how many training rows are about what changed, and are old.
        rejected: why others are not in it.
    """

    examples: list[Example]
    new: list[str]
    earlier: list[Example]
    fresh: int
    replayed: int
    rejected: list[Verdict]


def ask_anew(
    now: Sequence[Chunk], plan: Plan, s: Settings, reporter: Reporter
) -> Iterator[Example]:
    """Questions about what the plan names, each with its split; not validated yet."""
    for use in USES:
        if plan.ask[use]:
            found = make_examples(now, s, reporter, only=plan.ask[use], beside=plan.beside[use])
            for row in found:
                yield row.model_copy(update={"split": AS_SPLIT[use]})


def assemble(
    asked: Sequence[Example],
    past: Lineage,
    now: Sequence[Chunk],
    plan: Plan,
    s: Settings,
    *,
    replay: float,
    least: int = 0,
    afresh: bool,
    reporter: Reporter,
) -> Rows:
    """Sound new rows and true old ones, so that nothing tested on was ever trained on.

    Args:
        asked: from `ask_anew`. replay: old training rows for each new one.
        least: training rows that there should be, at least; old ones make up for what lacks.
    """
    rejected: list[Verdict] = []
    rows = _validated(asked, s, reporter, rejected)
    test = list(still_true(past.test, now))
    texts = {chunk.id: chunk.text for chunk in now}
    train = _unlike([row for row in rows if row.split == "train"], list(texts_of(test)), rejected)
    seen = list(texts_of([*past.trained, *train]))
    fresh_test = _untold([row for row in rows if row.split == "test"], seen, texts, rejected)
    count = max(round(replay * len(train)), least - len(train))
    old = [] if afresh else _replayed(past, now, train, count, s)
    fresh_valid = [row for row in rows if row.split == "valid"]
    # The first rows are validated on: as many of what is new as of what must not be forgotten.
    turns = zip_longest(fresh_valid, still_true(past.valid, now))
    valid = [row for row in chain.from_iterable(turns) if row is not None]
    ids = {row.id for row in (*train, *old)}
    return Rows(
        examples=[*train, *old, *valid, *fresh_test, *test],
        # Lists of commits are no chunks: what is told of them here is of new commits.
        new=[r.id for r in fresh_test if r.origin.chunk in plan.new or r.origin.chunk not in texts],
        earlier=[row for row in past.trained if row.id not in ids],
        fresh=len(train),
        replayed=len(old),
        rejected=rejected,
    )


def _validated(
    asked: Sequence[Example], s: Settings, reporter: Reporter, rejected: list[Verdict]
) -> list[Example]:
    if not asked:
        return []
    # Rows have their splits already, and gates on their count are for a whole repository.
    own = s.model_copy(update={"split": "test", "held_kinds": [], "min_examples": 0})
    sound = validated(asked, own, reporter, rejected.append)
    split = {row.id: row.split for row in asked}
    kept = [row.model_copy(update={"split": split[row.id]}) for row in sound]
    return [row for row in kept if row.split == "test" or row.origin.kind not in s.held_kinds]


def _replayed(
    past: Lineage, now: Sequence[Chunk], fresh: Sequence[Example], count: int, s: Settings
) -> list[Example]:
    """True old training rows, of whole contexts and of as many files as there are, by seed."""
    from forge_cli.evaluate import spread
    from forge_cli.validate.duplicates import consistent

    agrees = consistent()
    for row in fresh:
        agrees(row)
    ids = {row.id for row in fresh}
    pool = [row for row in still_true(past.trained, now) if row.id not in ids]
    kept = [row for row in pool if agrees(row) is None]
    return spread(kept, count, s.seed)


def _unlike(
    rows: Sequence[Example], texts: Sequence[str], rejected: list[Verdict]
) -> list[Example]:
    """The rows that show no text alike to one of `texts`."""
    near = _near(list(texts_of(rows)), texts)
    kept = []
    for row in rows:
        if any(document.text in near for document in row.documents):
            rejected.append(_leaking(row, "it shows a document like one that is tested on"))
        else:
            kept.append(row)
    return kept


def _untold(
    rows: Sequence[Example], seen: Sequence[str], texts: dict[str, str], rejected: list[Verdict]
) -> list[Example]:
    """The rows whose answers stand in no text alike to one of `seen`."""
    told = {row.id: told_by(row, texts) for row in rows}
    near = _near(list(dict.fromkeys(chain.from_iterable(told.values()))), seen)
    kept = []
    for row in rows:
        if near.intersection(told[row.id]):
            rejected.append(_leaking(row, "its answer stands in a document like one trained on"))
        else:
            kept.append(row)
    return kept


def _near(texts: Sequence[str], others: Sequence[str]) -> set[str]:
    from forge_cli.validate.near import leaking_pairs
    from forge_cli.validate.split import NEAR

    return {texts[number] for number, _, _ in leaking_pairs(others, texts, NEAR)}


def _leaking(row: Example, why: str) -> Verdict:
    return Verdict(id=row.id, check="leak", reason=why, path=row.origin.path or None)
