"""What reports tell, from a cycle, a trained run and a judge's answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_sample import Shop, drift, judged, row, shop, symbols

from browser import BROWSER, chromium
from forge_cli import mine
from forge_cli.core.jsonl import write_records
from forge_cli.guard.records import Cycle, Drift
from forge_cli.guard.reports import PAGES, facts, render, write_reports
from forge_cli.guard.reports.answers import is_right, read_answers, release_note, sign_test
from forge_cli.guard.reports.facts import HEADLINES
from forge_cli.guard.reports.symbols import symbols_between
from forge_cli.guard.reports.training import sparkline

ROOT = Path(__file__).parents[2]


BACK = "forge guard rollback shop"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return shop(tmp_path_factory.mktemp("reports"))


@pytest.fixture(scope="module")
def out(sample: Shop) -> Path:
    picture = b'<?xml version="1.0"?>\n<svg viewBox="0 0 9 9"><text>drift by time</text></svg>'
    return write_reports(
        sample.guarded, sample.cycle, symbols=symbols(), drift_picture=picture, rollback=BACK
    )  # fmt: skip


def test_both_forms_tell_the_same(out: Path) -> None:
    told = (
        "A better model was made", "shop:20261126-2", "shop:20261120-1", "15 min",
        BACK, "−0.300", "−0.311 to −0.289", "24 rows, 12 files",
        "not enough samples", "64 rows, at least 16", "31 % differ, more than 10 %", "on power",
        "(until 18:00)", "+0.870 nats a token", "value 24", "too few to tell",
    )  # fmt: skip
    for form in ("report.md", "report.html"):
        text = (out / form).read_text()
        assert [one for one in told if one not in text] == []
    assert "24 rows trained (4 of them replayed from before)" in (out / "report.md").read_text()
    assert "rows trained, 4 replayed" in (out / "report.html").read_text()


def test_pictures_stand_in_the_page(out: Path) -> None:
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2 and "<?xml" not in page
    assert "Loss in training and in validation by step" in page and "drift by time" in page


def test_nothing_but_the_pages_is_left_and_twice_is_the_same(sample: Shop, out: Path) -> None:
    assert {file.name for file in out.iterdir()} == set(PAGES)
    before = (out / "pull-request.md").read_bytes()
    assert before.startswith(b"<!-- forge-guard -->\n")
    made = write_reports(sample.guarded, sample.cycle, symbols=symbols(), rollback=BACK)
    assert made == out
    assert (out / "pull-request.md").read_bytes() == before


def test_what_a_model_newly_knows_and_forgot(sample: Shop) -> None:
    note = release_note(read_answers(sample.run), str(sample.before), shown=5)
    assert note is not None
    assert (note.total, note.still_right) == (34, 5)
    assert [note.knows.number, note.forgot.number, note.wrong.number] == [24, 2, 3]
    assert note.knows.more == 19 and sum(len(m.answers) for m in note.knows.modules) == 5
    assert [(m.path, m.number) for m in note.forgot.modules] == [("src/shop/old.py", 2)]
    lost = note.forgot.modules[0].answers[0]
    assert (lost.deployed, lost.new) == ("limit_24 is 27.", "<b>99</b> | `no`")
    assert (lost.symbol, lost.code) == ("shop.Cart", "old code")
    new, old = note.asked
    assert (new.number, new.gained, new.lost) == (24, 24, 0)
    assert new.says == "more learnt than forgotten"
    assert old.says.startswith("too few to tell: the two differ on 2 of 10")


def test_new_code_asked_alone_is_told_as_new(tmp_path: Path) -> None:
    judged(tmp_path, Path("/runs/old"), [("given", "a.py", False, True)])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "update.json").write_text('{"new": ["row-0"]}')
    note = release_note(read_answers(tmp_path), "/runs/old")
    assert note is not None and [one.code for one in note.asked] == ["new code"]


def test_which_symbols_differ_is_read_from_both_runs(tmp_path: Path) -> None:
    mined = {
        "old": "import os\n\ndef kept():\n    return 1\n\ndef lost():\n    return 2\n",
        "now": "import sys\n\ndef kept():\n    return 3\n\ndef found():\n    return open(0)\n",
    }
    for name, text in mined.items():
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "source").mkdir()
        (tmp_path / name / "source" / "a.py").write_text(text)
        chunks = mine.run(tmp_path / name / "source", jobs=1)
        write_records(chunks, tmp_path / name / "data" / "chunks.jsonl")
    found = symbols_between(tmp_path / "old", tmp_path / "now")
    assert sorted(found) == [
        ("added", "a.py", "found"), ("changed", "a.py", ""), ("changed", "a.py", "kept"),
        ("gone", "a.py", "lost"),
    ]  # fmt: skip
    assert symbols_between(tmp_path, tmp_path / "now") == []


def test_an_answer_is_right_when_exact_or_near_with_its_quotes() -> None:
    assert is_right({"exact_match": 1.0, "quote_correct": 0.0})
    assert is_right({"exact_match": 0.0, "answer_f1": 0.8, "quote_correct": 1.0})
    assert not is_right({"exact_match": 0.0, "answer_f1": 0.9, "quote_correct": 0.0})
    assert not is_right({"loss": 0.1})


def test_the_sign_test_is_exact() -> None:
    """By hand: 2 · 0.5^5, 2 · 0.5^6, 2 · (1 + 8) / 2^8."""
    assert [sign_test(5, 0), sign_test(0, 6), sign_test(1, 7)] == [0.0625, 0.03125, 18 / 256]
    assert sign_test(3, 3) == sign_test(0, 0) == 1.0


def test_a_first_model_is_told_against_the_base(tmp_path: Path) -> None:
    judged(tmp_path, Path("base"), [("given", "a.py", False, True)])
    note = release_note(read_answers(tmp_path), "")
    assert note is not None and note.knows.number == 1
    assert [one.code for one in note.asked] == ["held-out code"]
    assert release_note([], "") is None
    compared = {"base": 0.25, "tuned": 0.5, "difference": 0.25, "low": 0.1, "high": 0.4, "n": 9}
    drift = Drift(time="now", symbols=1, added=1, changed=0, gone=0, share=1, paths=["a.py"])
    cycle = Cycle(
        id="x", repository="/r/shop", name="shop", started="now", mode="first", drift=drift,
        outcome="deployed", comparison={"new": {"answer_f1": compared | {"verdict": "better"}}},
    )  # fmt: skip
    told = facts(cycle, run=tmp_path)
    assert told["drift"]["most_changed"] == []
    for page in PAGES:
        if page.startswith(("report", "release", "pull")):
            text = render(page, told)
            assert "held-out code" in text.lower() and "base" in text
            assert "new code" not in text and "deployed model" not in text


@pytest.mark.parametrize("outcome", HEADLINES)
def test_every_outcome_has_its_pages(outcome: str) -> None:
    cycle = Cycle.model_validate(
        {"id": "x", "repository": "/r/shop", "name": "shop", "started": "now", "outcome": outcome}
        | ({"error": "out of memory; choose less"} if outcome == "failed" else {})
    )
    told = facts(cycle)
    for page in PAGES:
        text = render(page, told)
        assert page.startswith("drift") or HEADLINES[outcome][0].split(";")[0] in text
        if outcome == "failed" and page.startswith(("report", "pull")):
            assert "out of memory" in text


def test_without_a_model_there_is_no_release_note(sample: Shop) -> None:
    cycle = Cycle(
        id="quiet", repository="/r/shop", name="shop", started="now",
        outcome="nothing to do", drift=drift(new_loss=None, new_score=None),
    )  # fmt: skip
    made = write_reports(sample.guarded, cycle)
    assert {file.name for file in made.iterdir()} == {p for p in PAGES if "release" not in p}
    assert "was not measured" in (made / "report.md").read_text()


def test_a_broken_file_is_named_and_the_rest_is_told(sample: Shop, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "raft.jsonl").write_text('{"id": 1}\n')
    text = render("report.md", facts(sample.cycle, run=tmp_path, before=sample.before))
    assert "run.json:1: Expecting property name" in text and "KeyError: 'condition'" in text
    assert "## Gates" in text and "## Training" not in text


def test_a_comment_fits_whatever_was_asked(sample: Shop, tmp_path: Path) -> None:
    """GitHub takes 65,536 characters."""
    says = [("later", f"{'deep/' * 30}{n}.py", True, False) for n in range(300)]
    judged(tmp_path, sample.before, says)
    told = facts(sample.cycle, run=tmp_path, before=sample.before)
    assert told["note"]["forgot"]["number"] == 300
    assert len(render("pull-request.md", told)) < 40_000


def test_a_training_that_ran_away_is_told(sample: Shop) -> None:
    file = sample.run / "metrics.jsonl"
    before = file.read_text()
    try:
        file.write_text(f'[1]\n{before}{{"step": 98, "loss": NaN}}\n')
        page = (write_reports(sample.guarded, sample.cycle) / "report.md").read_text()
        file.write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": NaN}\n')
        away = (write_reports(sample.guarded, sample.cycle) / "report.md").read_text()
    finally:
        file.write_text(before)
    assert "## Training" in page and "## Training" in away and "loss nan → nan" in away


@pytest.mark.parametrize("text", ["[1]\n", "null\n", '{"x'])
def test_answers_of_another_form_are_named(sample: Shop, tmp_path: Path, text: str) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "raft.jsonl").write_text(text)
    assert "Error" in facts(sample.cycle, run=tmp_path, before=sample.before)["unread"][0]


def test_a_curve_in_block_characters() -> None:
    assert sparkline([4.0, 3.0, 2.0, 1.0]) == "█▆▃▁"
    assert len(sparkline(range(1000))) == 24
    assert sparkline([1.0]) == ""


def test_facts_are_plain_data(sample: Shop) -> None:
    told = facts(
        sample.cycle, [drift()], sample.run, sample.before, symbols=symbols(), rollback="mv a b"
    )
    assert told["rollback"] == "mv a b"
    assert json.loads(json.dumps(told)) == told
    first = told["drift"]["most_changed"][0]
    assert (first["path"], first["number"], first["more"]) == ("src/shop/cart.py", 50, 38)
    assert row(1, "a.py", 1).id not in told  # no row of the data itself


def test_the_document_is_current() -> None:
    made = subprocess.run(
        [sys.executable, "docs/make_reports.py"], cwd=ROOT, capture_output=True, check=True
    )
    assert (ROOT / "docs" / "reports.md").read_bytes() == made.stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_pages_fit_a_phone_and_are_silent(out: Path) -> None:
    for page, said, width in _opened(out):
        assert (said, width) == ([(out / page).as_uri()], 390)


def _opened(out: Path) -> Iterator[tuple[str, list[str], int]]:
    with chromium() as browser:
        for name in (name for name in PAGES if name.endswith(".html")):
            page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
            said: list[str] = []
            page.on("console", lambda one, said=said: said.append(one.text))
            page.on("pageerror", lambda one, said=said: said.append(str(one)))
            page.on("request", lambda one, said=said: said.append(one.url))
            page.goto((out / name).as_uri())
            yield name, said, page.evaluate("document.documentElement.scrollWidth")
            assert page.get_by_role("main").count() == 1
            assert page.get_by_role("heading", level=1).count() == 1
            page.close()
