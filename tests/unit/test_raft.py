"""RAFT rows: right answers, verbatim quotes, honest refusals, the same bytes for a seed."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path

import pytest

from forge_cli import mine, raft
from forge_cli.core.answer_form import ABSTAIN, is_abstention, read_answer, write_answer
from forge_cli.core.errors import ForgeError
from forge_cli.core.jsonl import dump, write_records
from forge_cli.core.records import Answer, Chunk, Quote
from forge_cli.raft.contexts import form_contexts, jaccard, words_of
from forge_cli.raft.python_facts import read_facts
from forge_cli.raft.questions import ask, callees, first_sentence

STDLIB = Path(json.__file__).parents[1]

SOURCE = '''
def scale(values, factor: float = 2.0, *, sep="a=b", deep=None) -> list[float]:
    """Multiply every value by a factor. Slow."""
    if not values:
        raise ValueError("empty")
    def inner():
        raise KeyError("not mine")
    try:
        return [shift(v) * factor for v in values]
    except TypeError as error:
        raise error


def shift(
    value,
    by=1,
):
    """See scale."""
    return value + by


async def wait(seconds, /, step=(1, 2)):
    raise TimeoutError from None
'''


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Chunk]:
    folder = tmp_path_factory.mktemp("repo")
    (folder / "a.py").write_text(SOURCE)
    return {c.symbol: c for c in mine.run(folder) if c.symbol}


@pytest.fixture(scope="module")
def stdlib() -> list[Chunk]:
    return [*mine.run(STDLIB / "json"), *mine.run(STDLIB / "email")]


def asked(chunk: Chunk, known: set[str]) -> dict[str, tuple[str, list[str]]]:
    found = {}
    for seed in range(20):  # the parameter of a default question is drawn
        for item in ask(chunk, known, 10, random.Random(seed)):
            key = item.kind
            if item.kind == "default":
                key = next(
                    n for n in ("factor", "sep", "deep", "by", "step") if f"`{n}`" in item.question
                )
            found[key] = (item.final, item.quotes)
    return found


def test_answers_are_what_the_code_says(chunks: dict[str, Chunk]) -> None:
    found = asked(chunks["scale"], {"shift"})
    assert found["purpose"][0] == "Multiply every value by a factor."
    assert found["factor"] == ("2.0", ["factor: float = 2.0"])
    assert found["sep"] == ('"a=b"', ['sep="a=b"'])
    assert found["deep"] == ("None", ["deep=None"])
    assert found["returns"][0] == "list[float]"
    assert found["raises"] == ("ValueError", ['raise ValueError("empty")'])
    assert found["calls"] == ("shift", ["return [shift(v) * factor for v in values]"])
    wait = asked(chunks["wait"], set())
    assert wait["step"] == ("(1, 2)", ["step=(1, 2)"])
    assert wait["raises"][0] == "TimeoutError"
    shift = asked(chunks["shift"], set())
    assert shift["by"][0] == "1"
    assert shift["signature"][0] == "def shift( value, by=1, )"
    assert "purpose" not in shift, "two words say nothing"


def test_callees_come_from_resolved_links(chunks: dict[str, Chunk]) -> None:
    assert callees(list(chunks.values()))["a.py", "scale"] == {"shift"}


def test_facts_of_what_does_not_parse() -> None:
    assert read_facts("def f(:") is None
    assert read_facts("x = 1") is None


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Adds e.g. numbers. More.", "Adds e.g. numbers."),
        ("One line without an end", "One line without an end"),
        ("Wrapped over\nlines. Next.", "Wrapped over lines."),
        ("", ""),
        ("word " * 100, ""),
    ],
)
def test_first_sentence(docstring: str, sentence: str) -> None:
    assert first_sentence(docstring) == sentence


def test_rows_of_a_real_library_hold_what_they_promise(stdlib: list[Chunk]) -> None:
    rows = list(raft.run(stdlib, distractors=3))
    assert len(rows) > 300
    shown: dict[str, set[str]] = defaultdict(set)
    oracles = 0
    for row in rows:
        texts = {d.id: d.text for d in row.documents}
        shown[row.context_id].add(json.dumps([d.text for d in row.documents]))
        oracle = [d for d in row.documents if d.oracle]
        oracles += bool(oracle)
        if oracle:
            assert [d.id for d in oracle] == [row.origin.chunk]
            assert row.answer.quotes
            assert all(q.text in texts[q.document] for q in row.answer.quotes)
        else:
            assert row.origin.chunk not in texts
            assert row.answer.final == ABSTAIN and not row.answer.quotes
        assert 1 <= len(row.documents) <= 4
        assert row.messages[-1].content == write_answer(row.answer)
        assert row.messages[1].content.endswith(f"Question: {row.question}")
    assert all(len(variants) == 1 for variants in shown.values()), "one context, one text"
    assert 0.72 < oracles / len(rows) < 0.88
    assert {r.origin.kind for r in rows} >= {"purpose", "signature", "default", "raises", "calls"}


def test_a_seed_decides_every_byte(stdlib: list[Chunk]) -> None:
    first = b"".join(dump(row) for row in raft.run(stdlib, seed=1))
    assert first == b"".join(dump(row) for row in raft.run(stdlib, seed=1))
    assert first != b"".join(dump(row) for row in raft.run(stdlib, seed=2))


def test_every_document_is_in_one_context_without_near_duplicates(stdlib: list[Chunk]) -> None:
    asked_about = [c for c in stdlib if c.kind in ("function", "method") and c.parts == 1]
    contexts = form_contexts(asked_about, 4, random.Random(0))
    placed = [c.id for context in contexts for c in context.chunks]
    assert sorted(placed) == sorted(c.id for c in asked_about)
    for context in contexts:
        words = [words_of(c.text) for c in context.chunks]
        pairs = [(a, b) for i, a in enumerate(words) for b in words[:i]]
        assert all(jaccard(a, b) < 0.9 for a, b in pairs)


def test_neighbours_are_harder_than_chance(stdlib: list[Chunk]) -> None:
    asked_about = [c for c in stdlib if c.kind in ("function", "method") and c.parts == 1]

    def alike(groups: list[list[Chunk]]) -> float:
        pairs = [
            jaccard(words_of(a.text), words_of(b.text))
            for group in groups
            for i, a in enumerate(group)
            for b in group[:i]
        ]
        return sum(pairs) / len(pairs)

    chosen = [c.chunks for c in form_contexts(asked_about, 4, random.Random(0))]
    mixed = random.Random(0).sample(asked_about, len(asked_about))
    chance = [mixed[i : i + 4] for i in range(0, len(mixed), 4)]
    assert alike(chosen) > 1.5 * alike(chance)


def test_other_tools_load_the_rows(stdlib: list[Chunk], tmp_path: Path) -> None:
    from datasets import load_dataset

    rows = list(raft.run(stdlib))[:50]
    write_records(rows, tmp_path / "rows.jsonl")
    loaded = load_dataset(
        "json", data_files=str(tmp_path / "rows.jsonl"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert loaded[0]["messages"][2]["role"] == "assistant" and len(loaded) == 50


def test_no_code_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# only words\n")
    with pytest.raises(ForgeError, match="none of 1 chunks"):
        list(raft.run(mine.run(tmp_path)))


def test_the_answer_form_reads_back() -> None:
    answer = Answer(reason="Why.", quotes=[Quote(document="", text="a\n  b")], final="42")
    assert read_answer(write_answer(answer)) == answer
    loose = read_answer("It is 42, I think.")
    assert loose.final == "It is 42, I think." and not loose.quotes
    assert is_abstention(ABSTAIN) and not is_abstention("42")


def test_a_row_knows_when_its_chunk_last_changed(chunks: dict[str, Chunk]) -> None:
    dated = [
        chunk.model_copy(update={"committed": f"2024-01-{day:02}"})
        for day, chunk in enumerate(chunks.values(), 1)
    ]
    days = {chunk.id: chunk.committed for chunk in dated}
    rows = list(raft.run(dated))
    assert rows and all(row.origin.committed == days[row.origin.chunk] for row in rows)
