"""Preference pairs whose wrong answers are wrong, and rows in the shapes of other tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forge_cli import mine, raft
from forge_cli.core.answer_form import ABSTAIN, read_answer, write_answer
from forge_cli.core.errors import BadRecord
from forge_cli.core.jsonl import dump, read_records, write_records
from forge_cli.core.records import Example
from forge_cli.raft.formats import to_line
from forge_cli.raft.preferences import make_preferences


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    return list(raft.run(mine.run(Path(json.__file__).parent)))


def test_rejected_answers_are_wrong_and_keep_the_form(rows: list[Example]) -> None:
    pairs = [pair for seed in range(5) for pair in make_preferences(rows, seed=seed)]
    assert len(pairs) > 5 * 0.95 * len(rows)
    by_prompt = {(r.messages[1].content, write_answer(r.answer)): r for r in rows}
    ways = set()
    for pair in pairs:
        row = by_prompt[pair.messages[1].content, pair.chosen]
        wrong, right = read_answer(pair.rejected), row.answer
        assert pair.rejected.startswith("##Reason: ") and "##Answer: " in pair.rejected
        oracles = [d.text for d in row.documents if d.oracle]
        false_quote = any(all(q.text not in text for text in oracles) for q in wrong.quotes)
        other_final = wrong.final != " ".join(right.final.split("\n")) and (
            wrong.final != right.final.strip()
        )
        assert false_quote or other_final, pair.rejected
        if right.final == ABSTAIN:
            ways.add("unfounded")
            assert wrong.final != ABSTAIN
        elif wrong.final == ABSTAIN:
            ways.add("refusal")
        elif not other_final:
            ways.add("false quote")
        elif [q.text for q in wrong.quotes] == [q.text for q in right.quotes]:
            ways.add("wrong value")
        else:
            ways.add("distractor")
    assert ways == {"unfounded", "refusal", "false quote", "wrong value", "distractor"}


def test_most_wrong_answers_look_like_answers_to_the_question(rows: list[Example]) -> None:
    """What another definition shown would answer: a first line is told apart too easily."""
    finals: dict[str, set[str]] = {}
    for row in rows:
        finals.setdefault(row.origin.kind, set()).add(row.answer.final)
    for asked in ("signature", "purpose"):
        pairs = [
            (read_answer(p.rejected).final, read_answer(p.chosen).final)
            for seed in range(5)
            for p in make_preferences(rows, seed=seed)
            if p.origin.kind == asked
        ]
        given = [wrong for wrong, right in pairs if wrong not in (ABSTAIN, right)]
        assert sum(wrong in finals[asked] for wrong in given) > 0.5 * len(given) > 0, asked


def test_pairs_are_the_same_for_a_seed(rows: list[Example]) -> None:
    first = b"".join(map(dump, make_preferences(rows, seed=1)))
    assert first == b"".join(map(dump, make_preferences(rows, seed=1)))
    assert first != b"".join(map(dump, make_preferences(rows, seed=2)))


def test_every_shape_loads_with_datasets(rows: list[Example], tmp_path: Path) -> None:
    from datasets import load_dataset

    shapes = {
        "messages": [dump(r) for r in rows],
        "completion": [to_line(r, "completion") for r in rows],
        "reference": [to_line(r, "reference") for r in rows],
        "preferences": [dump(p) for p in make_preferences(rows)],
    }
    columns = {}
    for name, lines in shapes.items():
        write_records(lines, tmp_path / f"{name}.jsonl")
        loaded = load_dataset(
            "json", data_files=str(tmp_path / f"{name}.jsonl"), cache_dir=str(tmp_path / "cache")
        )["train"]
        assert len(loaded) == len(lines)
        columns[name] = loaded
    first = rows[0]
    assert columns["completion"][0]["completion"] == write_answer(first.answer)
    assert columns["completion"][0]["prompt"].endswith(first.question)
    assert set(columns["reference"].column_names) == {
        "id", "type", "question", "context", "oracle_context", "cot_answer", "instruction",
    }  # fmt: skip
    quoted = next(row for row in columns["reference"] if row["oracle_context"])
    assert "##begin_quote##" in quoted["cot_answer"]
    assert quoted["instruction"].count("<DOCUMENT>") >= 1
    assert columns["preferences"][0]["chosen"] != columns["preferences"][0]["rejected"]


@pytest.mark.parametrize("form", ["completion", "reference"])
def test_rows_for_other_tools_are_no_records(
    rows: list[Example], tmp_path: Path, form: str
) -> None:
    (tmp_path / "rows.jsonl").write_bytes(to_line(rows[0], form))
    with pytest.raises(BadRecord, match=r"rows\.jsonl:1: no record of Forge") as error:
        list(read_records(tmp_path / "rows.jsonl", Example))
    assert "--format messages" in error.value.hint
