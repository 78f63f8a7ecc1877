"""Validation: near-duplicates, by candidates and exactly; splits and leakage built on them."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest

from forge_cli import mine, raft, validate
from forge_cli.core.errors import GateFailed, UsageError
from forge_cli.core.records import Example, Quote, Verdict
from forge_cli.validate.near import clusters, jaccard, leaking_pairs, near_pairs, shingles
from forge_cli.validate.page import histogram, marked, render_page
from forge_cli.validate.repair import repair
from forge_cli.validate.split import assign, leakage

MODEL = "smollm2-135m"
WORD = [a + b for a in "bcdfgh" for b in "aeiou"]
WORDS = [f"word{n}" for n in range(400)]


def texts(seed: int = 0, families: int = 60) -> list[str]:
    """Families of texts: one, and copies of it with more and more words changed."""
    rng = random.Random(seed)
    found = []
    for _ in range(families):
        words = rng.choices(WORDS, k=80)
        for changes in (0, 1, 2, 4, 12):
            copy = list(words)
            for _ in range(changes):
                copy[rng.randrange(80)] = rng.choice(WORDS)
            found.append(" ".join(copy))
    return found


def test_candidates_miss_no_pair_that_counting_all_finds() -> None:
    given = texts()
    vocabulary: dict[str, int] = {}
    sets = [shingles(text, vocabulary) for text in given]
    exact = {
        (b, a)
        for a, b in itertools.combinations(range(len(given)), 2)
        if jaccard(sets[a], sets[b]) >= 0.7
    }
    found = {(later, earlier) for later, earlier, _ in near_pairs(given, 0.7)}
    assert found == exact and len(exact) > 60


def test_groups_and_short_texts() -> None:
    given = ["a b c d e f g h", "x y", "a b c d e f g h", "x y", "x z", ""]
    assert clusters(given, 0.7) == [0, 1, 0, 1, 4, 5]
    assert clusters([], 0.7) == [] and clusters(["a"], 0.7) == [0]
    many = ["one two three four five six seven"] * 500
    assert set(clusters(many, 0.7)) == {0}


def test_leaks_are_counted_exactly() -> None:
    given = texts(1, 30)
    train, test = given[0::5], given[1::5] + given[4::5] + ["nothing like it at all, in no way"]
    pairs = leaking_pairs(train, test, 0.7)
    vocabulary: dict[str, int] = {}
    sets = [shingles(t, vocabulary) for t in train]
    for number, text in enumerate(test):
        best = max(jaccard(shingles(text, vocabulary), s) for s in sets)
        assert (best >= 0.7) == any(number == pair[0] for pair in pairs)


def copied(folder: Path, files: int = 24) -> list[Example]:
    """A repository in which every second file repeats a function of the file before it."""
    body = "    total = 0\n    for item in items:\n        total += item.size * {n}\n" * 3
    for number in range(files):
        n = number - number % 2
        lines = []
        for i in range(3):
            name = f"{WORD[number]}{WORD[i]}"
            own = "".join(f"    {WORD[j]}_{name} = make_{name}_{WORD[j]}()\n" for j in range(9))
            doc = f'    """Adds up the {name} sizes of it."""\n'
            lines.append(f"def job_{name}(items, k={i}):\n{doc}{own}")
        lines.append(f"def shared(items):\n{body.format(n=n)}    return total - {number}\n")
        (folder / f"m{number:02}.py").write_text("\n\n".join(lines))
    return list(raft.run(mine.run(folder), distractors=2))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return copied(tmp_path_factory.mktemp("repo"))


def test_files_with_near_duplicates_are_not_torn_apart(rows: list[Example]) -> None:
    split = assign(rows, test_share=0.3, valid_share=0.2, seed=0)
    assert leakage(split) == (0, 0.0)
    torn = [
        r.model_copy(update={"split": "test" if int(r.origin.path[1:3]) % 2 else "train"})
        for r in rows
    ]
    assert leakage(torn)[0] > 0


def dated(rows: list[Example]) -> list[Example]:
    return [
        r.model_copy(update={
            "origin": r.origin.model_copy(update={"committed": f"20{r.origin.path[1:3]}-01-01"})
        })
        for r in rows
    ]  # fmt: skip


def test_by_time_the_newest_files_are_tested(rows: list[Example]) -> None:
    split = assign(dated(rows), test_share=0.2, valid_share=0.2, seed=0, by="time")
    newest = {s: max(r.origin.committed or "" for r in split if r.split == s)
              for s in ("train", "valid", "test")}  # fmt: skip
    assert newest["test"] > newest["valid"] > newest["train"]
    with pytest.raises(UsageError, match="time of a commit"):
        assign(rows, test_share=0.2, valid_share=0.2, seed=0, by="time")


def test_near_duplicate_and_contradicting_rows(rows: list[Example]) -> None:
    row = next(r for r in rows if r.origin.kind == "default" and r.answer.quotes)
    other = row.answer.model_copy(update={"final": row.answer.final + "00"})
    from forge_cli.core.answer_form import render

    lie = row.model_copy(update={
        "id": "lie", "context_id": "elsewhere", "answer": other,
        "messages": render(row.documents, row.question, other),
        "origin": row.origin.model_copy(update={"kind": "from a teacher"}),
    })  # fmt: skip
    verdicts: list[Verdict] = []
    validate.run([*rows, lie], model=MODEL, on_reject=verdicts.append)
    assert ("lie", "contradiction") in {(v.id, v.check) for v in verdicts}
    long = row.answer.model_copy(update={"reason": " ".join(WORDS[:60])})
    twins = [
        row.model_copy(update={
            "id": name, "context_id": name, "question": question, "answer": long,
            "messages": render(row.documents, question, long),
        })
        for name, question in (("a", row.question), ("b", row.question + " Please."))
    ]  # fmt: skip
    verdicts.clear()
    kept = validate.run([*rows, *twins], model=MODEL, on_reject=verdicts.append)
    assert [(v.id, v.check) for v in verdicts if v.id in "ab"] == [("b", "near-duplicate")]
    assert {r.id for r in kept} >= {"a"}


def test_fix_mends_what_leaves_no_doubt(rows: list[Example]) -> None:
    good = next(r for r in rows if r.origin.kind == "signature" and r.answer.quotes)
    quote = good.answer.quotes[0]
    loose = Quote(document=quote.document, text="  ".join(quote.text.split()))
    moved = Quote(document="gone", text=quote.text)
    for broken in (loose, moved):
        answer = good.answer.model_copy(update={"quotes": [broken]})
        row = good.model_copy(update={
            "answer": answer,
            "documents": [d.model_copy(update={"oracle": False}) for d in good.documents],
        })  # fmt: skip
        counts: Counter[str] = Counter()
        assert repair(row, counts) == good and counts == {"quote": 1, "oracle": 1}
    lie = good.answer.model_copy(update={"quotes": [Quote(document="gone", text="no such text")]})
    counts = Counter()
    repair(good.model_copy(update={"answer": lie}), counts)
    assert "quote" not in counts
    stale = [
        good.messages[0],
        *good.messages[1:2],
        good.messages[2].model_copy(update={"content": "?"}),
    ]
    broken_rows = [*rows, good.model_copy(update={"id": "m", "messages": stale})]
    reports: list[validate.Report] = []
    validate.run(broken_rows, model=MODEL, fix=True, on_report=reports.append)
    assert reports[0].repairs == {"messages": 1}


def test_quality_is_a_gate_and_the_report_says_what_it_saw(rows: list[Example]) -> None:
    reports: list[validate.Report] = []
    validate.run(rows, model=MODEL, on_report=reports.append)
    report = reports[0]
    assert 0 < report.quality <= 1
    size = max(len(r.documents) for r in rows)
    assert sum(report.positions) == sum(
        sum(d.oracle for d in r.documents) == 1 and len(r.documents) == size for r in rows
    )
    assert "oracle at place" in "\n".join(report.lines())
    with pytest.raises(GateFailed, match="min_quality"):
        validate.run(rows, model=MODEL, min_quality=0.999)
    only = [r for r in rows if r.origin.kind == "where"]
    validate.run(only, model=MODEL, on_report=reports.append)
    assert reports[-1].quality == 0, "one kind of question is no variety"


def test_an_uneven_place_of_the_oracle_is_seen(rows: list[Example]) -> None:
    first = [
        r.model_copy(update={"documents": sorted(r.documents, key=lambda d: not d.oracle)})
        for r in rows
    ]
    reports: list[validate.Report] = []
    validate.run(first, model=MODEL, fix=True, on_report=reports.append)
    assert reports[0].position_p is not None and reports[0].position_p < 1e-6


def test_the_page_shows_rows_and_escapes_them(rows: list[Example]) -> None:
    reports: list[validate.Report] = []
    verdicts: list[Verdict] = []
    evil = rows[0].model_copy(update={"question": "<script>alert(1)</script>"})
    validate.run([*rows, evil], model=MODEL, on_report=reports.append, on_reject=verdicts.append)
    reports[0].samples[0] = evil
    page = render_page(reports[0])
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "<mark>" in page and "http" not in page.replace("http-equiv", "")
    assert verdicts[0].check in page
    drawn = histogram([1, 1, 2, 900])
    assert drawn is not None and sum(b["n"] for b in drawn["bins"]) == 4  # type: ignore[attr-defined]
    document = rows[0].documents[0]
    pieces = marked(document, [document.text[3:9]])
    assert "".join(text for text, _ in pieces) == document.text and pieces[1] == (
        document.text[3:9],
        True,
    )
