"""The judge model: places swapped, ties, and agreement, over a real HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_judge import ORACLE, OTHER, row

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT
from forge_cli.evaluate.ask import Heard
from forge_cli.evaluate.asked import Question
from forge_cli.evaluate.judge_model import Judged, agreement, judge
from forge_cli.evaluate.judging import judge_sides
from forge_cli.teachers import Completion, open_teacher
from openai_server import OpenAIServer

QUESTIONS = [Question("given", row(ORACLE, OTHER)) for _ in range(4)]
BAD, GOOD = ["n is 4"] * 4, ["n is 3", "n is 3!", "n is 3.", "n is 4"]


def heard(texts: list[str]) -> Heard:
    return Heard([Completion(text) for text in texts])


def right(shown: str) -> str:
    """Which of the two places holds the right answer."""
    first, second = shown.split("Answer A:")[1].split("Answer B:")
    a, b = ("3" in part for part in (first, second))
    return "A" if a and not b else "B" if b and not a else "NEITHER"


def ask(answer: Callable[[str], str], folder: Path) -> tuple[Judged, OpenAIServer]:
    server = OpenAIServer(lambda chat: answer(chat[-1]["content"]))
    try:
        teacher = open_teacher("openai:judge", url=server.url)
        assert teacher is not None
        return judge(teacher, QUESTIONS, heard(BAD), heard(GOOD), folder, SILENT), server
    finally:
        server.close()


def test_a_fair_judge_prefers_the_right_answer_in_both_places(tmp_path: Path) -> None:
    found, server = ask(lambda shown: f"Well.\nBETTER: {right(shown)}", tmp_path)
    assert found == Judged([1.0, 1.0, 1.0, 0.5], 0, 0)
    assert len(server.requests) == 6, "equal answers are not asked about"
    shown = server.requests[0]["messages"][-1]["content"]
    assert "Reference: 3" in shown and ORACLE.text in shown and "Question: q" in shown


def test_a_judge_that_looks_at_the_place_alone_gives_ties(tmp_path: Path) -> None:
    found, _ = ask(lambda shown: "BETTER: A", tmp_path)
    assert found == Judged([0.5] * 4, 3, 0)


@pytest.mark.parametrize(("said", "unread"), [("I cannot say", 6), ("BETTER: NEITHER", 0)])
def test_a_judge_that_chooses_none(said: str, unread: int, tmp_path: Path) -> None:
    found, _ = ask(lambda shown: said, tmp_path)
    assert found == Judged([0.5] * 4, 0, unread)


def test_the_last_word_counts(tmp_path: Path) -> None:
    found, _ = ask(lambda shown: f"BETTER: A? No.\n**BETTER: {right(shown)}**", tmp_path)
    assert found.wins == [1.0, 1.0, 1.0, 0.5]


def test_what_it_said_is_kept_and_errors_are_told(tmp_path: Path) -> None:
    server = OpenAIServer(lambda chat: "BETTER: B")
    try:
        teacher = open_teacher("openai:judge", url=server.url)
        assert teacher is not None
        for _ in range(2):
            judge(teacher, QUESTIONS, heard(BAD), heard(GOOD), tmp_path, SILENT)
        assert len(server.requests) == 6
        server.faults.extend([400] * 9)
        with pytest.raises(ForgeError):
            judge(teacher, QUESTIONS, heard(GOOD), heard(["n = 3"] * 4), tmp_path, SILENT)
    finally:
        server.close()


def test_agreement_counts_rows_where_both_prefer_a_side() -> None:
    # Of four: both the second, both the first, one each way; a tie and an equal score do not count.
    assert agreement([1, 0, 1, 0.5, 1], [0.4, -0.1, -0.2, 0.9, 0.0]) == (2 / 3, 3)
    assert agreement([0.5], [1.0]) == (0.0, 0)


def test_the_last_side_is_judged_against_each_other(tmp_path: Path) -> None:
    server = OpenAIServer(lambda chat: f"BETTER: {right(chat[-1]['content'])}")
    zero, one = ({"exact_match": v, "answer_f1": v, "quote_correct": 0.0} for v in (0.0, 1.0))
    scores = {"base": [zero] * 4, "tuned": [one, one, zero, zero]}
    try:
        teacher = open_teacher("openai:judge", url=server.url)
        assert teacher is not None
        sides = {"base": heard(BAD), "tuned": heard(GOOD)}
        found = judge_sides(teacher, ["base", "tuned"], QUESTIONS, sides, scores, tmp_path, SILENT)
    finally:
        server.close()
    assert found == {("base", "tuned"): [1.0, 1.0, 1.0, 0.5]}
    told = json.loads((tmp_path / "judge.json").read_text())["pairs"][0]
    assert (told["won"], told["lost"], told["ties"]) == (3, 0, 1)
    assert told["agreement"]["exact_match"] == {"share": 1.0, "n": 2}
    assert told["agreement"]["quote_correct"] == {"share": None, "n": 0}
