"""Scores worked out by hand, and intervals that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from forge_cli.core.answer_form import ABSTAIN, render
from forge_cli.core.records import Answer, Document, Example, Origin, Quote
from forge_cli.evaluate import spread
from forge_cli.evaluate.metrics import score
from forge_cli.evaluate.metrics.text import word_f1
from forge_cli.evaluate.statistics import compare

ORACLE = Document(id="o", path="a.py", text="def f(n=3):\n    return n", oracle=True)
OTHER = Document(id="d", path="b.py", text="def g(n=4):\n    return n", oracle=False)


def row(*documents: Document) -> Example:
    oracle = any(d.oracle for d in documents)
    answer = (
        Answer(reason="r", quotes=[Quote(document="o", text="n=3")], final="3")
        if oracle
        else Answer(reason="r", final=ABSTAIN)
    )
    return Example(
        id="1", context_id="c", documents=list(documents), question="q", answer=answer,
        messages=render(documents, "q", answer), origin=Origin(kind="default", chunk="o"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "wanted", "value"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("the cat", "the cat sat", 0.8),  # precision 1, recall 2/3
        ("a a b", "a b", 0.8),  # shared 2 of 3 and of 2
        ("x", "y", 0.0),
        ("", "y", 0.0),
        ("...", "...", 1.0),
        ("`()`", "()", 1.0),
    ],
)
def test_f1(given: str, wanted: str, value: float) -> None:
    assert word_f1(given, wanted) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "f1_", "quote", "abstention"),
    [
        ("##Reason: r\n##begin_quote##\nn=3\n##end_quote##\n##Answer: 3", 1, 1, 1),
        ("##Reason: r\n##begin_quote##\nn=4\n##end_quote##\n##Answer: 3", 1, 0, 1),  # distractor
        ("##Reason: r\n##begin_quote##\nn= 3\n##end_quote##\n##Answer: 4", 0, 0, 1),
        ("3", 1, 0, 1),
        ("##begin_quote##\nn=3\n##end_quote##\n##begin_quote##\nn=3\n##Answer: 3", 1, 0, 1),
        (f"##Reason: r\n##Answer: {ABSTAIN}", 0, 0, 0),
    ],
)
def test_scores_with_an_oracle(text: str, f1_: float, quote: float, abstention: float) -> None:
    found = score(row(ORACLE, OTHER), text)
    want = {"answer_f1": f1_, "quote_correct": quote, "abstention": abstention}
    assert {name: found[name] for name in want} == want


@pytest.mark.parametrize(
    ("text", "f1_", "quote", "abstention"),
    [
        (f"##Reason: r\n##Answer: {ABSTAIN}", 1, 1, 1),
        ("##Reason: r\n##begin_quote##\nn=4\n##end_quote##\n##Answer: 4", 0, 0, 0),
        ("4", 0, 1, 0),
        (f"##Reason: r\n##begin_quote##\nn=4\n##Answer: {ABSTAIN}", 1, 0, 1),  # without an end
    ],
)
def test_scores_without_an_oracle(text: str, f1_: float, quote: float, abstention: float) -> None:
    found = score(row(OTHER), text)
    want = {"answer_f1": f1_, "quote_correct": quote, "abstention": abstention}
    assert {name: found[name] for name in want} == want


def clustered(rng: np.random.Generator, clusters: int, rows: int) -> tuple[list[float], list[str]]:
    shift = rng.normal(0, 1, clusters)
    values = [float(shift[c] + rng.normal(0, 0.5)) for c in range(clusters) for _ in range(rows)]
    return values, [f"f{c}" for c in range(clusters) for _ in range(rows)]


def test_intervals_hold_the_truth_where_rows_are_clustered() -> None:
    rng = np.random.default_rng(0)
    held, held_by_row = 0, 0
    trials = 200
    for trial in range(trials):
        values, files = clustered(rng, 40, 6)
        zero = [0.0] * len(values)
        by_file = compare(zero, values, files, lower_is_better=False, resamples=1000, seed=trial)
        single = [str(i) for i in range(len(values))]
        by_row = compare(zero, values, single, lower_is_better=False, resamples=1000, seed=trial)
        held += by_file.low <= 0 <= by_file.high
        held_by_row += by_row.low <= 0 <= by_row.high
    assert 0.90 <= held / trials <= 0.98
    assert held_by_row / trials < 0.75, "rows drawn singly must be seen to fail"


def verdict(shift: float, *, lower: bool, clusters: int = 8) -> str:
    values, files = clustered(np.random.default_rng(1), clusters, 4)
    tuned = [v + shift for v in values]
    return compare(values, tuned, files, lower_is_better=lower, resamples=1000, seed=0).verdict


def test_verdicts() -> None:
    assert verdict(0.5, lower=False) == "better" == verdict(-0.5, lower=True)
    assert verdict(-0.5, lower=False) == "worse" == verdict(0.5, lower=True)
    assert verdict(0.0, lower=True) == "no difference shown"
    assert verdict(0.5, lower=False, clusters=3) == "not enough samples"
    assert verdict(0.5, lower=False, clusters=5) == "not enough samples"


def test_the_first_test_rows_are_from_as_many_files_as_there_are() -> None:
    def example(context: int, number: int) -> Example:
        origin = Origin(kind="default", chunk="o", path=f"f{context % 5}.py")
        return row(ORACLE).model_copy(
            update={"id": f"{context}/{number}", "context_id": str(context), "origin": origin}
        )

    rows = [example(context, number) for context in range(20) for number in range(6)]
    chosen = spread(rows, 30, seed=3)
    assert len({e.id for e in chosen}) == 30
    assert len({e.context_id for e in chosen}) == 5, "whole contexts, one of each file"
    assert len({e.origin.path for e in chosen[:5]}) == 5
    assert chosen == spread(rows, 30, seed=3) != spread(rows, 30, seed=4)


def test_a_seed_decides_the_interval() -> None:
    values, files = clustered(np.random.default_rng(2), 10, 3)
    zero = [0.0] * len(values)
    runs = [
        compare(zero, values, files, lower_is_better=True, resamples=2000, seed=s)
        for s in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]
