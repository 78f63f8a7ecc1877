"""Each side by itself: rates with intervals, abstention, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from forge_cli.core.answer_form import is_abstention, read_answer
from forge_cli.evaluate.ask import Heard
from forge_cli.evaluate.asked import Question
from forge_cli.evaluate.statistics.calibration import calibrate
from forge_cli.evaluate.statistics.rates import clustered_wilson

_RATES = ("exact_match", "quote_correct", "abstention", "tests_pass")


def summarise(
    questions: Sequence[Question], heard: Heard, scores: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """Condition → what a side did there, as JSON.

    rates: of 0/1 scores, each with Wilson's interval by file.
    abstention: precision (of those that abstained, how many should) and recall (of those that
    should, how many did), each with n.
    calibration: of answers whose confidence is known, against exact matches.
    """
    found = {}
    for condition in dict.fromkeys(q.condition for q in questions):
        places = [i for i, q in enumerate(questions) if q.condition == condition]
        rows = [(questions[i], heard.answers[i], scores[i]) for i in places]
        files = [question.example.origin.path for question, _, _ in rows]
        own: dict[str, Any] = {"n": len(rows), "files": len(set(files))}
        own["rates"] = {
            name: _share(
                [(bool(s[name]), f) for (_, _, s), f in zip(rows, files, strict=True) if name in s]
            )
            for name in _RATES
        }
        abstained = [is_abstention(read_answer(answer.text).final) for _, answer, _ in rows]
        should = [is_abstention(q.example.answer.final) for q, _, _ in rows]
        told = list(zip(should, abstained, files, strict=True))
        own["abstention"] = {
            "precision": _share([(s, f) for s, a, f in told if a]),
            "recall": _share([(a, f) for s, a, f in told if s]),
        }
        known = [
            (a.confidence, s["exact_match"])
            for _, a, s in rows
            if a.confidence is not None and "exact_match" in s
        ]
        if known:
            sure, right = zip(*known, strict=True)
            own["calibration"] = asdict(calibrate(sure, right))
        found[condition] = own
    return found


def _share(hits: Sequence[tuple[bool, str]]) -> dict[str, float | int | None]:
    """A rate with Wilson's interval by file; None where there is nothing to count."""
    if not hits:
        return {"rate": None, "low": None, "high": None, "n": 0}
    values, files = zip(*hits, strict=True)
    low, high = clustered_wilson(values, files)
    return {"rate": sum(values) / len(values), "low": low, "high": high, "n": len(values)}
