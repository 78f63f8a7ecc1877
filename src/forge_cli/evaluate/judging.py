"""The judge model over the sides of an evaluation, and how far it agrees with the metrics."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import write_json
from forge_cli.evaluate.ask import Heard
from forge_cli.evaluate.asked import Question
from forge_cli.evaluate.judge_model import agreement, judge
from forge_cli.teachers import Teacher

_METRICS = ("exact_match", "answer_f1", "quote_correct")


def judge_sides(
    teacher: Teacher,
    names: Sequence[str],
    questions: Sequence[Question],
    heard: Mapping[str, Heard],
    scores: Mapping[str, list[dict[str, float]]],
    out: Path,
    reporter: Reporter,
) -> dict[tuple[str, str], list[float]]:
    """The last side against each other one, on the answers as given.

    Writes `out`/judge.json: who judged, its wins, ties and swayed pairs, and for each metric how
    often both prefer the same side.

    Returns:
        (reference, side) → wins by question (see `judge_model.Judged`).
    """
    places = [n for n, question in enumerate(questions) if question.condition == "given"]
    asked, side = [questions[n] for n in places], names[-1]
    found: dict[tuple[str, str], list[float]] = {}
    told: list[dict[str, Any]] = []
    for reference in names[:-1]:
        first, second = (
            Heard([heard[name].answers[n] for n in places]) for name in (reference, side)
        )
        judged = judge(teacher, asked, first, second, out / "cache", reporter)
        found[reference, side] = judged.wins
        agreed = {}
        for metric in _METRICS:
            apart = [scores[side][n][metric] - scores[reference][n][metric] for n in places]
            share, count = agreement(judged.wins, apart)
            agreed[metric] = {"share": share if count else None, "n": count}
        told.append({
            "reference": reference, "side": side, "n": len(asked),
            "won": judged.wins.count(1.0), "lost": judged.wins.count(0.0),
            "ties": judged.wins.count(0.5), "swayed": judged.swayed, "unread": judged.unread,
            "agreement": agreed,
        })  # fmt: skip
        shares = [one["share"] for one in agreed.values() if one["share"] is not None]
        mean = f"{statistics.mean(shares):.0%}" if shares else "unknown"
        reporter.note(
            f"{teacher.name} prefers {side} to {reference} in {judged.wins.count(1.0)} of "
            f"{len(asked)}, the other in {judged.wins.count(0.0)}; swayed by place in "
            f"{judged.swayed}; it agrees with the metrics in {mean}"
        )
    write_json(out / "judge.json", {"judge": teacher.name, "pairs": told})
    return found
