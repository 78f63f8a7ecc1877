"""What a model newly knows, what it forgot, and what it still gets wrong: question by question."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import comb
from pathlib import Path
from typing import Any

from forge_cli.core.answer_form import read_answer
from forge_cli.guard.reports.escaping import shorten
from forge_cli.guard.reports.fields import Answered, Answers, Asked, Module, Note

# Condition of the judge's rows → what the question is about.
CODE = {"later": "new code", "given": "old code"}
# What a first model is asked about: nothing of it is old.
HELD_OUT = "held-out code"
# Questions of a list that are shown, and characters of an answer.
SHOWN, LENGTH = 20, 160
# Fewer questions on which the two differ cannot tell them apart: 2 · 0.5^6 is 0.03, 2 · 0.5^5
# is 0.06.
_TELLING = 6
_ENOUGH_F1 = 0.8
Row = Mapping[str, Any]


def read_answers(run: Path) -> list[Row]:
    """The judge's rows of a run, each with what every side made of it; none: never judged.

    Those of `pipeline.update` come first: the deployed run against the new one.
    """
    files = [run / "eval" / "update" / "raft.jsonl", run / "eval" / "raft.jsonl"]
    file = next((file for file in files if file.exists()), None)
    if file is None:
        return []
    rows = [json.loads(line) for line in file.read_bytes().splitlines()]
    # Where there is no old code to ask about, the new is asked as the rows that are given.
    plan = run / "data" / "update.json"
    new = set(json.loads(plan.read_bytes())["new"]) if plan.exists() else set()
    return [row | {"condition": "later"} if row["id"] in new else row for row in rows]


def is_right(scores: Mapping[str, Any]) -> bool:
    """Whether an answer counts as right: exact, or nearly and with its quotes correct."""
    near = scores.get("answer_f1", 0.0) >= _ENOUGH_F1 and scores.get("quote_correct", 0.0) == 1
    return bool(scores.get("exact_match", 0.0) == 1 or near)


def release_note(rows: Sequence[Row], before: str, *, shown: int = SHOWN) -> Note | None:
    """The three lists; None where there is no question that both models answered.

    Args:
        rows: see `read_answers`; only those of `CODE` that both models answered count.
        before: path of the run that was deployed, the name of its side; "": none, so the base.
        shown: most questions of a list.
    """
    both = [
        (row, own[side], own["tuned"])
        for row in rows
        if row["condition"] in CODE
        and (side := _deployed(own := row["sides"], before))
        and all("text" in one for one in (own[side], own.get("tuned", {})))
    ]
    if not both:
        return None
    sorted_: dict[tuple[bool, bool], list[tuple[Row, Row, Row]]] = {}
    for one in both:
        sorted_.setdefault((is_right(one[1]), is_right(one[2])), []).append(one)
    names = CODE if before else dict.fromkeys(CODE, HELD_OUT)
    lists = {key: _listed(found, shown, names) for key, found in sorted_.items()}
    empty = _listed([], shown, names)
    return Note(
        asked=[
            _tally(names[condition], own)
            for condition in CODE
            if (own := [one for one in both if one[0]["condition"] == condition])
        ],
        total=len(both),
        knows=lists.get((False, True), empty),
        forgot=lists.get((True, False), empty),
        wrong=lists.get((False, False), empty),
        still_right=len(sorted_.get((True, True), [])),
    )


def _deployed(sides: Mapping[str, Row], before: str) -> str:
    """The side that is the deployed model: by its path, else a run or file, else the base."""
    for name in (before, str(Path(before).resolve())):
        if name in sides:
            return name
    others = [name for name in sides if name != "tuned" and not name.endswith("+examples")]
    return next((name for name in others if name != "base"), others[0] if others else "")


def _tally(code: str, both: Sequence[tuple[Row, Row, Row]]) -> Asked:
    right = [(is_right(old), is_right(new)) for _, old, new in both]
    gained, lost = right.count((False, True)), right.count((True, False))
    p = sign_test(gained, lost)
    return Asked(
        code=code,
        number=len(both),
        deployed=sum(old for old, _ in right),
        new=sum(new for _, new in right),
        gained=gained,
        lost=lost,
        p=p,
        says=_says(gained, lost, len(both), p),
    )


def _says(gained: int, lost: int, asked: int, p: float) -> str:
    if gained + lost < _TELLING:
        return (
            f"too few to tell: the two differ on {gained + lost} of {asked}, "
            f"and fewer than {_TELLING} could all be chance"
        )
    if p > 0.05:
        return "no difference shown: so many for and against could be chance"
    return "more learnt than forgotten" if gained > lost else "more forgotten than learnt"


def sign_test(gained: int, lost: int) -> float:
    """Two-sided p of so uneven a split, were either as likely (McNemar's exact test)."""
    n = gained + lost
    tail = sum(comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n
    return min(1.0, 2 * tail)


def _listed(found: Sequence[tuple[Row, Row, Row]], shown: int, names: Mapping[str, str]) -> Answers:
    """New code first, then by file, those with the most first."""
    by_path: dict[str, list[Answered]] = {}
    for row, old, new in sorted(found, key=lambda one: list(CODE).index(one[0]["condition"])):
        by_path.setdefault(row["path"], []).append(_answered(row, old, new, names))
    modules, left = [], shown
    for path, answers in sorted(by_path.items(), key=lambda one: -len(one[1])):
        if left:
            modules.append(Module(path=path, number=len(answers), answers=answers[:left]))
            left -= len(modules[-1].answers)
    return Answers(number=len(found), more=len(found) - (shown - left), modules=modules)


def _answered(row: Row, old: Row, new: Row, names: Mapping[str, str]) -> Answered:
    holding = [one for one in row["documents"] if one.get("oracle")]
    return Answered(
        question=shorten(row["question"], 2 * LENGTH),
        code=names[row["condition"]],
        symbol=next((one["symbol"] for one in holding if one.get("symbol")), ""),
        deployed=_final(old["text"]),
        new=_final(new["text"]),
        reference=_final(row["reference"]),
    )


def _final(text: str) -> str:
    """The answer itself, without reason and quotes."""
    return shorten(read_answer(text).final, LENGTH)
