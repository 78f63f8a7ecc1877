"""What was heard of two sides, metric by metric, as comparisons."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from forge_cli.evaluate.ask import Heard
from forge_cli.evaluate.asked import Question
from forge_cli.evaluate.latency import Speed
from forge_cli.evaluate.metrics import LOSSES, METRICS, TIMES
from forge_cli.evaluate.statistics import Comparison, compare, correct


@dataclass(frozen=True)
class Pair:
    """One metric of two sides under one condition.

    Attributes:
        condition: see `evaluate.conditions`.
        reference, side: what is compared with what; the difference is side − reference.
    """

    condition: str
    metric: str
    reference: str
    side: str
    found: Comparison


def make_pairs(
    names: Sequence[str],
    questions: Sequence[Question],
    rows: Sequence[Question],
    heard: Mapping[str, Heard],
    scores: Mapping[str, list[dict[str, float]]],
    *,
    resamples: int,
    seed: int,
    judged: Mapping[tuple[str, str], Sequence[float]] = MappingProxyType({}),
    timed: Sequence[Question] = (),
    speeds: Mapping[str, Speed] = MappingProxyType({}),
    decisive: Collection[str] = (),
) -> list[Pair]:
    """Every two sides, an earlier one as reference for a later one; corrected for how many.

    What decides was named before anything was measured, so these are corrected among themselves,
    and what is only looked at among itself.

    Args:
        questions: that were answered, with `scores` by side. rows: of which losses were taken.
        judged: by reference and side, what a judge made of each answer as given (see
            `judge_model.Judged`).
        timed: questions whose answers were timed, with `speeds` by side.
        decisive: metrics that a suite's rules name, as CONDITION.METRIC.
    """
    pairs = []
    for at, side in enumerate(names):
        for reference in names[:at]:
            how = {"resamples": resamples, "seed": seed}
            own = _losses(reference, side, rows, heard, how)
            own += _scores(reference, side, questions, scores, how)
            if wins := judged.get((reference, side)):
                own.append(_judged(reference, side, questions, wins, how))
            pairs += _corrected(own, decisive)
            # How fast a machine is says nothing of how good an answer is: a family of its own.
            pairs += _corrected(list(_times(reference, side, timed, speeds, how)))
    return pairs


def _corrected(pairs: Sequence[Pair], decisive: Collection[str] = ()) -> list[Pair]:
    found = list(pairs)
    decides = [f"{pair.condition}.{pair.metric}" in decisive for pair in pairs]
    for family in (True, False):
        places = [at for at, own in enumerate(decides) if own == family]
        for at, one in zip(places, correct([pairs[at].found for at in places]), strict=True):
            found[at] = replace(pairs[at], found=one)
    return found


def _times(
    reference: str,
    side: str,
    timed: Sequence[Question],
    speeds: Mapping[str, Speed],
    how: Mapping[str, int],
) -> Iterator[Pair]:
    """Of answers that both sides gave; of one token alone no time for each after it is known."""
    if not timed:
        return
    both = list(zip(timed, speeds[reference].timings, speeds[side].timings, strict=True))
    for metric, name in zip(TIMES, ("first", "each"), strict=True):
        known = [
            (q.example.origin.path, getattr(one, name), getattr(other, name))
            for q, one, other in both
            if None not in (getattr(one, name), getattr(other, name))
        ]
        if known:
            files, before, after = zip(*known, strict=True)
            found = compare(before, after, files, lower_is_better=True, **how)
            yield Pair("latency", metric, reference, side, found)


def _losses(
    reference: str,
    side: str,
    rows: Sequence[Question],
    heard: Mapping[str, Heard],
    how: Mapping[str, int],
) -> list[Pair]:
    before, after = heard[reference].losses, heard[side].losses
    if before is None or after is None:
        return []
    pairs = []
    for condition in dict.fromkeys(row.condition for row in rows):
        places = [i for i, row in enumerate(rows) if row.condition == condition]
        files = [rows[i].example.origin.path for i in places]
        one, other = ([losses[i] for i in places] for losses in (before, after))
        found = compare(one, other, files, lower_is_better=True, **how)
        pairs.append(Pair(condition, LOSSES[condition], reference, side, found))
    return pairs


def _scores(
    reference: str,
    side: str,
    questions: Sequence[Question],
    scores: Mapping[str, list[dict[str, float]]],
    how: Mapping[str, int],
) -> list[Pair]:
    pairs = []
    for condition in dict.fromkeys(q.condition for q in questions):
        for metric in METRICS[condition]:
            places = [
                i for i, q in enumerate(questions)
                if q.condition == condition and metric in scores[side][i]
            ]  # fmt: skip
            if not places:
                continue
            files = [questions[i].example.origin.path for i in places]
            one, other = ([scores[s][i][metric] for i in places] for s in (reference, side))
            found = compare(one, other, files, lower_is_better=False, **how)
            pairs.append(Pair(condition, metric, reference, side, found))
    return pairs


def _judged(
    reference: str,
    side: str,
    questions: Sequence[Question],
    wins: Sequence[float],
    how: Mapping[str, int],
) -> Pair:
    """The share of answers as given that a judge prefers of each side; a tie is half for both."""
    files = [q.example.origin.path for q in questions if q.condition == "given"]
    lost = [1 - win for win in wins]
    return Pair(
        "given", "judged", reference, side,
        compare(lost, wins, files, lower_is_better=False, **how),
    )  # fmt: skip
