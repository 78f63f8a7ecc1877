"""RAFT rows: right answers, verbatim quotes, honest refusals, the same bytes for a seed."""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from forge_cli import mine, raft
from forge_cli.core.answer_form import ABSTAIN, is_abstention, read_answer, write_answer
from forge_cli.core.errors import ForgeError
from forge_cli.core.jsonl import dump, write_records
from forge_cli.core.records import Answer, Chunk, Quote
from forge_cli.raft.contexts import form_contexts, jaccard, words_of
from forge_cli.raft.index import Index
from forge_cli.raft.python_facts import read_facts
from forge_cli.raft.questions import Ask, Subject, ask
from forge_cli.raft.relations import relate
from forge_cli.raft.spans import first_sentence, is_telling
from forge_cli.raft.wordings import UNSEEN, WORDINGS

STDLIB = Path(json.__file__).parents[1]

SOURCE = '''
def scale(values, factor: float = 2.0, *, sep="a=b", deep=None) -> list[float]:
    """Multiply every value by a factor. Slow."""
    if not values:
        raise ValueError("empty")
    def inner():
        raise KeyError("not mine")
    return [shift(v) * factor for v in values]


def again(x):
    """Try it. And again."""
    try:
        return shift(x)
    except TypeError as error:
        raise error


def shift(
    value,
    by=1,
) -> int:
    """See scale."""
    return value + by


class Box:
    """Holds things of some weight."""

    def size(self):
        return 1

    def weight(self):
        return 2


class Empty:
    def close(self):
        return None


class Twice:
    @property
    def x(self):
        return self._x

    @x.setter
    def x(self, value):
        self._x = value

    notes = """
    A line that makes the class too large for one chunk.
    A line that makes the class too large for one chunk.
    A line that makes the class too large for one chunk.
    A line that makes the class too large for one chunk.
    A line that makes the class too large for one chunk.
    A line that makes the class too large for one chunk.
    """


async def wait(seconds, /, step=(1, 2)):
    raise TimeoutError from None
'''

TESTS = """
from a import shift


def test_shift():
    assert shift(1, by=2) == 3
"""


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> list[Chunk]:
    folder = tmp_path_factory.mktemp("repo")
    (folder / "a.py").write_text(SOURCE)
    (folder / "test_a.py").write_text(TESTS)
    return list(mine.run(folder, max_chars=400))


@pytest.fixture(scope="module")
def chunks(mined: list[Chunk]) -> dict[str, Chunk]:
    return {c.symbol: c for c in mined if c.symbol and c.part == 1}


@pytest.fixture(scope="module")
def index(mined: list[Chunk]) -> Index:
    return Index(mined)


@pytest.fixture(scope="module")
def stdlib() -> list[Chunk]:
    return [*mine.run(STDLIB / "json"), *mine.run(STDLIB / "email")]


def asked(chunk: Chunk, index: Index) -> dict[str, Ask]:
    """All that is asked about a chunk alone; default questions by their parameter."""
    found = {}
    for seed in range(20):  # the parameter of a default question is drawn
        for item in ask(Subject(chunk, index), random.Random(seed)):
            key = item.kind
            if item.kind == "default":
                key = next(
                    n for n in ("factor", "sep", "deep", "by", "step") if f"`{n}`" in item.question
                )
            found[key] = item
    return found


def related(
    chunk: Chunk, shown: list[Chunk], index: Index
) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """kind → (final, quotes elsewhere with the symbols of their documents)."""
    by_id = {c.id: c.symbol or "" for c in shown}
    subjects = {c.id: Subject(c, index) for c in shown}
    found = relate(subjects[chunk.id], list(subjects.values()), random.Random(0))
    return {a.kind: (a.final, [(by_id[d], quote) for d, quote in a.elsewhere]) for a in found}


def test_answers_are_what_the_code_says(chunks: dict[str, Chunk], index: Index) -> None:
    found = {k: (a.final, a.quotes) for k, a in asked(chunks["scale"], index).items()}
    assert found["purpose"][0] == "Multiply every value by a factor."
    assert found["find"] == ("`scale`, in `a.py`", ["Multiply every value by a factor."])
    assert found["factor"] == ("2.0", ["factor: float = 2.0"])
    assert found["sep"] == ('"a=b"', ['sep="a=b"'])
    assert found["deep"] == ("None", ["deep=None"])
    assert found["returns"][0] == "list[float]"
    assert found["raises"] == ("ValueError", ['raise ValueError("empty")'])
    assert found["calls"] == ("`shift`", ["return [shift(v) * factor for v in values]"])
    assert found["where"][0] == "a.py"
    wait = asked(chunks["wait"], index)
    assert wait["step"].quotes == ["step=(1, 2)"] and wait["raises"].final == "TimeoutError"
    shift = asked(chunks["shift"], index)
    assert shift["by"].final == "1"
    assert shift["signature"].final == "def shift( value, by=1, ) -> int"
    assert "purpose" not in shift, "two words say nothing"
    assert "raises" not in asked(chunks["again"], index), "what `error` is does not stand there"
    again = asked(chunks["again"], index)["completion"]
    assert (
        again.always
        and again.final
        == "try:\n    return shift(x)\nexcept TypeError as error:" + ("\n    raise error")
    )
    assert 'def again(x):\n    """Try it.' in again.question
    box = asked(chunks["Box"], index)
    assert box["members"].final == "size, weight"
    assert "signature" not in asked(chunks["Empty"], index)


def test_a_property_and_its_setter_are_not_asked_about(
    chunks: dict[str, Chunk], index: Index
) -> None:
    assert not index.is_askable(chunks["Twice.x"])
    assert index.is_askable(chunks["scale"]) and not index.is_askable(chunks["test_shift"])


def test_answers_of_several_documents(mined: list[Chunk], index: Index) -> None:
    shown = [c for c in mined if c.symbol in ("scale", "shift", "test_shift")]
    by_symbol = {c.symbol: c for c in shown}
    shift = related(by_symbol["shift"], shown, index)
    assert shift["callers"] == (
        "`scale`, `test_shift`",
        [
            ("scale", "return [shift(v) * factor for v in values]"),
            ("test_shift", "assert shift(1, by=2) == 3"),
        ],
    )
    assert shift["usage"] == (
        "assert shift(1, by=2) == 3", [("test_shift", "assert shift(1, by=2) == 3")]
    )  # fmt: skip
    assert shift["absent"][0] == ""
    scale = related(by_symbol["scale"], shown, index)
    final, quotes = scale["hop_returns"]
    assert final == "`shift`: int"
    assert [(symbol, " ".join(q.split())) for symbol, q in quotes] == [
        ("shift", "def shift( value, by=1, ) -> int")
    ]


def test_a_caller_that_may_be_another_s_makes_the_question_unsafe(
    mined: list[Chunk], index: Index
) -> None:
    shown = [c for c in mined if c.symbol in ("scale", "shift")]
    doubtful = shown[0].model_copy(
        update={"id": "x", "symbol": "other", "text": "def other(o):\n    o.shift(1)\n"}
    )
    shift = next(c for c in shown if c.symbol == "shift")
    assert "callers" in related(shift, shown, index)
    assert "callers" not in related(shift, [*shown, doubtful], index)


def test_commits_answer_why(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SOURCE)
    subjects = ["Multiply by two unless told otherwise", "Begin"]
    dated = [c.model_copy(update={"history": subjects}) for c in mine.run(tmp_path)]
    rows = [row for row in raft.run(dated, oracle_p=1) if row.origin.kind == "change"]
    assert len(rows) == 1
    assert rows[0].answer.final == "Multiply by two unless told otherwise"
    (oracle,) = [d for d in rows[0].documents if d.oracle]
    assert oracle.text.startswith("Commits that touched a.py") and "- Begin" in oracle.text
    empty = [c.model_copy(update={"history": ["Bump version to 2"]}) for c in dated]
    assert all(row.origin.kind != "change" for row in raft.run(empty))


def test_facts_of_what_does_not_parse() -> None:
    assert read_facts("def f(:") is None
    assert read_facts("x = 1") is None


@pytest.mark.parametrize(
    ("sentence", "symbol", "telling"),
    [
        ("Return the name.", "get_name", False),
        ("Parse a header into its parts.", "parse", True),
        ("Initialize self.", "A.__init__", False),
        ("TODO: write this down properly", "f", False),
        ("Returns a mapping with the following keys:", "f", False),
        ("@param x the number of rows", "f", False),
        (":param x: the number of rows", "f", False),
        ("See scale.", "f", False),
        ("------------------------------", "f", False),
        ("Set the limits for write flow control.", "set_write_buffer_limits", True),
    ],
)
def test_what_a_docstring_tells(sentence: str, symbol: str, telling: bool) -> None:
    assert is_telling(sentence, symbol) == telling


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
    oracles = always = 0
    for row in rows:
        texts = {d.id: d.text for d in row.documents}
        shown[row.context_id].add(json.dumps([d.text for d in row.documents]))
        oracle = [d for d in row.documents if d.oracle]
        oracles += bool(oracle)
        always += row.origin.kind in ("completion", "absent")
        if oracle:
            assert {d.id for d in oracle} == {q.document for q in row.answer.quotes}
            assert all(q.text in texts[q.document] for q in row.answer.quotes)
        else:
            assert row.answer.final == ABSTAIN and not row.answer.quotes
            assert row.origin.kind == "absent" or row.origin.chunk not in texts
        assert 1 <= len(row.documents) <= 4
        assert row.messages[-1].content == write_answer(row.answer)
        assert row.messages[1].content.endswith(f"Question: {row.question}")
    assert all(len(variants) == 1 for variants in shown.values()), "one context, one text"
    assert 0.72 < oracles / len(rows) < 0.88
    assert {r.origin.kind for r in rows} >= {
        "purpose", "find", "signature", "default", "raises", "calls", "callers", "completion",
        "where", "absent", "hop_purpose",
    }  # fmt: skip
    positions = Counter(
        next(n for n, d in enumerate(r.documents) if d.oracle)
        for r in rows
        if len(r.documents) == 4 and sum(d.oracle for d in r.documents) == 1
    )
    assert min(positions.values()) > 0.7 * max(positions.values()), "the oracle stands anywhere"


def test_a_seed_decides_every_byte(stdlib: list[Chunk]) -> None:
    first = b"".join(dump(row) for row in raft.run(stdlib, seed=1))
    assert first == b"".join(dump(row) for row in raft.run(stdlib, seed=1))
    assert first != b"".join(dump(row) for row in raft.run(stdlib, seed=2))


def test_every_document_is_in_one_context_without_near_duplicates(stdlib: list[Chunk]) -> None:
    asked_about = [c for c in stdlib if c.kind in ("function", "method") and c.parts == 1]
    contexts = form_contexts(asked_about, Index(stdlib), 4, random.Random(0))
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

    chosen = [c.chunks for c in form_contexts(asked_about, Index(stdlib), 4, random.Random(0))]
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


def test_each_question_has_a_wording_that_no_row_is_asked_in() -> None:
    assert set(UNSEEN) == set(WORDINGS)
    for kind, wording in UNSEEN.items():
        assert wording not in WORDINGS[kind]
        names = {name for one in WORDINGS[kind] for name in re.findall(r"\{\w\}", one)}
        assert set(re.findall(r"\{\w\}", wording)) == names
    rows = list(raft.run(mine.run(STDLIB / "json")))
    asked = {row.question for row in rows}
    assert all(row.reworded and row.reworded not in asked for row in rows)
    for row in rows:
        named = re.findall("`[^`]+`", row.question)[:1]
        assert all(name in (row.reworded or "") for name in named)
