"""What was heard of two sides, metric by metric, as comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from forge_cli.evaluate.ask import Heard
from forge_cli.evaluate.asked import Question
from forge_cli.evaluate.metrics import LOSSES, METRICS
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
) -> list[Pair]:
    """Every two sides, an earlier one as reference for a later one; corrected for how many.

    Args:
        questions: that were answered, with `scores` by side. rows: of which losses were taken.
        judged: by reference and side, what a judge made of each answer as given (see
            `judge_model.Judged`).
    """
    pairs = []
    for at, side in enumerate(names):
        for reference in names[:at]:
            how = {"resamples": resamples, "seed": seed}
            own = _losses(reference, side, rows, heard, how)
            own += _scores(reference, side, questions, scores, how)
            if wins := judged.get((reference, side)):
                own.append(_judged(reference, side, questions, wins, how))
            corrected = correct([pair.found for pair in own])
            pairs += [
                replace(pair, found=found) for pair, found in zip(own, corrected, strict=True)
            ]
    return pairs


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
