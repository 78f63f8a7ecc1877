"""Which changed definitions an update trains on, validates on and is tested on."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal

from forge_cli.core.config import Settings
from forge_cli.core.records import Chunk, Split
from forge_cli.pipeline.update.changes import Changes
from forge_cli.pipeline.update.lineage import Lineage, name_of, texts_of

# What is made of a changed definition's questions. "test" and "valid" are so for good, as their
# files are; "held" and "checked" are tested and validated on by this update alone.
Use = Literal["train", "valid", "test", "held", "checked"]
USES: tuple[Use, ...] = ("train", "valid", "test", "held", "checked")
AS_SPLIT: Mapping[Use, Split] = {
    "train": "train", "valid": "valid", "test": "test", "held": "test", "checked": "valid",
}  # fmt: skip
_LEAST_GROUPS = 3


@dataclass
class Plan:
    """What is asked about, by the ids of chunks.

    Attributes:
        files: path → its split for good.
        ask: use → definitions to ask about. beside: use → what may be shown with them.
        new: definitions that no run of the lineage can have seen: neither they nor a text so
            much alike that it would hold the answer.
        owed: `name_of` of definitions that this update could train on and does not.
    """

    files: dict[str, Split]
    ask: dict[Use, set[str]] = field(default_factory=lambda: {use: set() for use in USES})
    beside: dict[Use, set[str]] = field(default_factory=lambda: {use: set() for use in USES})
    new: set[str] = field(default_factory=set)
    owed: set[str] = field(default_factory=set)


def make_plan(
    past: Lineage,
    now: Sequence[Chunk],
    found: Changes,
    doubted: Iterable[str],
    s: Settings,
    *,
    hold_share: float,
    afresh: bool,
) -> Plan:
    """Splits for what changed, without leaks from what was ever tested on.

    A file stays in its split. A new file goes with the one that it resembles, else it is drawn
    by seed. Of the changed definitions in training files a seeded share of groups (files, joined
    where they hold near-duplicates) is held out for this once, if it is new.

    Args:
        doubted: paths whose changes are not to be learned.
        afresh: the model begins anew, so that all of the training files is asked about.
    """
    from forge_cli.raft.index import Index
    from forge_cli.validate.near import leaking_pairs
    from forge_cli.validate.split import NEAR

    index = Index(now)
    askable = [chunk for chunk in now if index.is_askable(chunk)]
    files = past.files | _place_files(past, askable, s)
    plan = Plan({path: files[path] for path in sorted(files)})
    differing = {c.id for c in (*found.added, *(new for _, new in found.changed))}
    once = {c.id for c in found.moved} | {c.id for c in askable if name_of(c) in past.owed}
    mistrusted = set(doubted)
    wanted = [c for c in askable if c.id in differing | once and c.path not in mistrusted]
    plan.owed |= {name_of(c) for c in askable if c.path in mistrusted and c.id in differing | once}
    free = [c for c in wanted if files[c.path] == "train" and c.id not in once]
    seen = [*texts_of(past.trained), *(c.text for c in wanted if c.id in once)]
    known = {number for number, _, _ in leaking_pairs(seen, [c.text for c in wanted], NEAR)}
    plan.new = {c.id for number, c in enumerate(wanted) if number not in known and c.id not in once}
    held = _hold(free, plan.new, s, hold_share)
    for chunk in wanted:
        use: Use = held.get(chunk.id, files[chunk.path])
        if use == "held" and chunk.id not in plan.new:
            continue
        plan.ask[use].add(chunk.id)
    plan.owed |= {name_of(c) for c in free if c.id in held}
    doubtful = {c.id for c in now if c.path in mistrusted and c.id in differing | once}
    _put_beside(plan, now, held.keys() | doubtful)
    if afresh:
        rest = {c.id for c in askable if files[c.path] == "train"}
        plan.ask["train"] |= rest - held.keys() - doubtful
    return plan


def _put_beside(plan: Plan, now: Sequence[Chunk], hidden: Set[str]) -> None:
    """Documents of one split for good; what is held out stands beside what is known of its file."""
    once = plan.ask["held"] | plan.ask["checked"]
    paths = {chunk.path for chunk in now if chunk.id in once}
    for chunk in now:
        split = plan.files.get(chunk.path)
        if split is None or chunk.id in hidden:
            continue
        plan.beside[split].add(chunk.id)
        if chunk.path in paths and chunk.id not in plan.ask["train"]:
            plan.beside["held"].add(chunk.id)
            plan.beside["checked"].add(chunk.id)


def _place_files(past: Lineage, askable: Sequence[Chunk], s: Settings) -> dict[str, Split]:
    """The splits of files that no run of the lineage has placed."""
    from forge_cli.validate.near import clusters
    from forge_cli.validate.split import NEAR

    fresh = [chunk for chunk in askable if chunk.path not in past.files]
    if not fresh:
        return {}
    texts = texts_of([*past.trained, *past.valid, *past.test])
    texts |= {c.text: c.path for c in askable if c.path in past.files}
    paths = [*texts.values(), *(chunk.path for chunk in fresh)]
    groups = _Groups()
    firsts = clusters([*texts, *(chunk.text for chunk in fresh)], NEAR)
    drawn: dict[str, set[Split]] = {}
    for path, first in zip(paths, firsts, strict=True):
        split = past.files.get(path)
        # Old files are not joined with one another: each is where it is.
        name = f"\0{first}"
        if split:
            drawn.setdefault(name, set()).add(split)
        else:
            groups.join(path, name)
    resembled: dict[str, set[Split]] = {}
    for name, splits in drawn.items():
        resembled.setdefault(groups.find(name), set()).update(splits)
    found: dict[str, Split] = {}
    leads: dict[str, str] = {}
    for path in sorted({chunk.path for chunk in fresh}):
        group = groups.find(path)
        name = leads.setdefault(group, path)
        found[path] = _most_guarded(resembled.get(group, set())) or _draw(name, s)
    return found


def _most_guarded(splits: set[Split]) -> Split | None:
    order: tuple[Split, ...] = ("test", "valid", "train")
    return next((split for split in order if split in splits), None)


def _draw(group: str, s: Settings) -> Split:
    drawn = random.Random(f"{s.seed}/file/{group}").random()
    if drawn < s.test_share:
        return "test"
    return "valid" if drawn < s.test_share + s.valid_share else "train"


def _hold(
    free: Sequence[Chunk], new: set[str], s: Settings, share: float
) -> dict[str, Literal["held", "checked"]]:
    """What of the changed definitions in training files is held out of this update."""
    from forge_cli.validate.near import clusters
    from forge_cli.validate.split import NEAR, place_groups

    if not share or not free:
        return {}
    near = clusters([chunk.text for chunk in free], NEAR)
    for by_file in (True, False):
        groups = _Groups()
        for number, chunk in enumerate(free):
            name = f"\0{near[number]}"
            groups.join(name, chunk.path if by_file else name)
        of = {c.id: groups.find(f"\0{near[n]}") for n, c in enumerate(free)}
        sizes: dict[str, int] = {}
        for chunk in free:
            if chunk.id in new:
                sizes[of[chunk.id]] = sizes.get(of[chunk.id], 0) + 1
        if len(sizes) >= _LEAST_GROUPS:
            break
    order = sorted(sizes)
    random.Random(f"{s.seed}/held/{len(free)}").shuffle(order)
    if len(order) < _LEAST_GROUPS:
        # Of two the smaller can be spared, and one alone only where something else trains.
        spare = min(order, key=lambda group: sizes[group], default=None)
        trains = len(order) > 1 or len(set(of.values())) > 1
        place: dict[str, Split] = {spare: "test"} if spare and trains else {}
    else:
        place = place_groups(order, sizes, share, s.valid_share)
    uses: dict[Split, Literal["held", "checked"]] = {"test": "held", "valid": "checked"}
    return {
        chunk: uses[place[group]]
        for chunk, group in of.items()
        if place.get(group, "train") in uses
    }


class _Groups:
    """Union-find over names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        self._parent.setdefault(name, name)
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name

    def join(self, one: str, other: str) -> None:
        a, b = self.find(one), self.find(other)
        self._parent[max(a, b)] = min(a, b)
