"""All kinds of sides, on one tiny trained model, over one set of questions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from forge_cli import evaluate, export, train
from forge_cli.core.answer_form import ABSTAIN, render
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.records import Answer, Chunk, Document, Example, Origin, Quote
from forge_cli.evaluate import generation
from forge_cli.evaluate.report import _marked, _winner, write_reports
from forge_cli.evaluate.sides import SideSpec, open_side
from forge_cli.evaluate.statistics.verdict import decide
from forge_cli.evaluate.suites import read_suite
from forge_cli.train.checkpoint import checkpoints
from openai_server import OpenAIServer
from tiny_train import save_model


def make_row(number: int, split: str, *, oracle: bool = True) -> Example:
    def document(n: int, right: bool) -> Document:
        text = f"def job_{n}(a={n}):\n    return a"
        return Document(id=f"d{n}", path=f"f{n}.py", symbol=f"job_{n}", text=text, oracle=right)

    shown = [document(number, True)] if oracle else []
    documents = [*shown, document(number + 100, False)]
    question = f"What is the default of `a` of job_{number}?"
    answer = Answer(reason="It is there.", final=ABSTAIN)
    if oracle:
        quote = Quote(document=f"d{number}", text=f"a={number}")
        answer = Answer(reason="It is there.", quotes=[quote], final=str(number))
    return Example(
        id=f"{split}-{number}", context_id=f"c{number}", documents=documents, question=question,
        reworded=f"Nobody passes `a` to job_{number}: what is it?" if oracle else None,
        answer=answer, messages=render(documents, question, answer), split=split,  # type: ignore[arg-type]
        origin=Origin(kind="default", chunk=f"d{number}", path=f"f{number}.py"),
    )  # fmt: skip


def make_chunk(row: Example) -> Chunk:
    found = row.documents[0]
    size = len(found.text)
    return Chunk(
        id=found.id, repo="r", path=found.path, language="python", start_byte=0, end_byte=size,
        start_line=1, end_line=2, kind="function", symbol=found.symbol, text=found.text,
    )  # fmt: skip


ROWS = [make_row(n, "train", oracle=n % 3 != 2) for n in range(6)]
ROWS += [make_row(n, "valid") for n in (10, 11)] + [make_row(n, "test") for n in range(20, 28)]
ROWS.append(make_row(28, "test", oracle=False))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory: adapters, checkpoints of each second step, an exported file."""
    folder = tmp_path_factory.mktemp("run")
    model = str(save_model(folder / "model", max_position_embeddings=8192))
    train.run(
        ROWS, out=folder, model=model, rank=4, layers=0, steps=6, learning_rate=5e-3,
        valid_every=2, keep_last=9, max_tokens=8192,
    )  # fmt: skip
    export.run(adapters=folder / "adapters", out=folder / "export", name="m", parity=False)
    export.run(
        adapters=folder / "adapters", out=folder / "export", name="m", quants=["f16"], parity=False
    )
    return folder


def judge(trained: Path, out: Path, **changes: Any) -> list[evaluate.Pair]:
    settings: dict[str, Any] = {"answer_rows": 5, "condition_rows": 2, "resamples": 1000}
    return evaluate.run(ROWS, adapters=trained / "adapters", out=out, **settings | changes)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "raft.jsonl").read_text().splitlines()]


def test_every_side_answers_the_same_questions(trained: Path, tmp_path: Path) -> None:
    file = next((trained / "export").glob("*f16*.gguf"))
    last = f"checkpoint:{len(checkpoints(trained / 'checkpoints')) * 2 - 2}"
    server = OpenAIServer(lambda chat: f"##Answer: {len(chat)}")
    sides = ["base", "base+examples", "tuned", last, "checkpoint:0", str(file), "openai:m"]
    try:
        pairs = judge(
            trained, tmp_path, sides=sides, url=server.url, chunks=[make_chunk(r) for r in ROWS]
        )
    finally:
        server.close()
    found = lines(tmp_path)
    conditions = [line["condition"] for line in found]
    assert {c: conditions.count(c) for c in conditions} == {
        "given": 9, "reworded": 2, "oracle": 2, "distractors": 2, "closed_book": 2, "retrieved": 2,
    }  # fmt: skip
    given = [line["sides"] for line in found if line["condition"] == "given"]
    answered = [sides for sides in given if "text" in sides["base"]]
    assert len(answered) == 5 and all(set(sides) for sides in answered)
    mean = {
        side: sum(row[side]["loss"] for row in given) / len(given)
        for side in sides
        if "loss" in given[0][side]
    }
    assert "openai:m" not in mean, "a server does not tell"
    assert mean["tuned"] < mean["base"] - 0.1
    assert mean[str(file)] == pytest.approx(mean["tuned"], abs=0.02)
    assert mean["checkpoint:0"] == pytest.approx(mean["base"], abs=0.3)
    assert mean["checkpoint:0"] > mean["tuned"]
    assert not math.isclose(mean["base"], mean["base+examples"], abs_tol=1e-4)
    asked = len(server.requests[0]["messages"])
    assert all(row["openai:m"]["text"] == f"##Answer: {asked}" for row in answered)
    named = {(p.reference, p.side) for p in pairs}
    assert len(named) == 21, "every two sides"
    shown = {p.metric for p in pairs if p.condition == "closed_book"}
    assert shown == {"answer_f1", "exact_match"}


def test_sides_by_the_clock(trained: Path, tmp_path: Path) -> None:
    file = str(next((trained / "export").glob("*f16*.gguf")))
    server = OpenAIServer(lambda chat: "one two three")
    sides = ["base", "base+examples", "tuned", file, "openai:m"]
    settings: dict[str, Any] = {"conditions": ["latency"], "sides": sides, "url": server.url}
    try:
        pairs = judge(trained, tmp_path, **settings)
        asked = len(server.requests)
        assert judge(trained, tmp_path, **settings) == pairs, "measured once"
    finally:
        server.close()
    assert asked == len(server.requests) == 10, "nine, and one before them"
    speeds = json.loads((tmp_path / "latency.json").read_text())
    assert list(speeds) == sides
    for side, own in speeds.items():
        assert own["n"] == 9 and own["first_token_seconds"] > 0 and own["tokens_per_second"] > 0
        assert (own["peak_bytes"] is None) == (side == "openai:m")
        # What Python and the libraries take alone, and no terabyte: the unit is right.
        assert own["peak_bytes"] is None or 5e7 < own["peak_bytes"] < 5e9
    assert {(p.condition, p.metric) for p in pairs} == {
        ("latency", "first_token_seconds"), ("latency", "token_seconds"),
    }  # fmt: skip
    assert lines(tmp_path) == []
    verdict = decide(
        {f"{p.condition}.{p.metric}": p.found for p in pairs}, read_suite("latency").rules
    )
    page, _ = write_reports(tmp_path, pairs, verdict, {})
    assert "By the clock" in page.read_text()


def test_a_side_that_cannot_be_timed_says_why(trained: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"GGUF junk")
    with pytest.raises(ForgeError, match=r"junk\.gguf: .*llama.cpp refuses it"):
        judge(trained, tmp_path, conditions=["latency"], sides=["base", str(junk)])


def test_kinds_and_wordings_never_trained_on(trained: Path, tmp_path: Path) -> None:
    raises = ROWS[-2].origin.model_copy(update={"kind": "raises"})
    held = [
        row.model_copy(update={"origin": raises}) if row.id in ("test-20", "test-21") else row
        for row in ROWS
    ]
    server = OpenAIServer(lambda chat: "x")
    try:
        evaluate.run(
            held, adapters=trained / "adapters", out=tmp_path, sides=["openai:m"], url=server.url,
            conditions=["given", "reworded", "unseen"], answer_rows=20, condition_rows=20,
        )  # fmt: skip
    finally:
        server.close()
    ids: dict[str, set[str]] = {}
    for line in lines(tmp_path):
        ids.setdefault(line["condition"], set()).add(line["id"])
        if line["condition"] == "reworded":
            assert line["question"].startswith("Nobody passes")
    assert ids["unseen"] == {"test-20", "test-21"}
    assert ids["given"] == {f"test-{n}" for n in range(22, 29)}
    assert ids["reworded"] == {f"test-{n}" for n in range(22, 28)}
    asked = [request["messages"][-1]["content"] for request in server.requests]
    assert sum("Nobody passes" in text for text in asked) == 6


def test_worked_examples_and_conditions_reach_the_prompt(trained: Path, tmp_path: Path) -> None:
    server = OpenAIServer(lambda chat: "x")
    try:
        judge(
            trained, tmp_path, sides=["openai:m", "openai:m+examples"], url=server.url,
            chunks=[make_chunk(row) for row in ROWS], answer_rows=1,
        )  # fmt: skip
    finally:
        server.close()
    chats = [request["messages"] for request in server.requests]
    plain = [chat for chat in chats if len(chat) == 2]
    worked = [chat for chat in chats if len(chat) == 6]
    # Six conditions each; without documents there is no form to show: one more is plain.
    assert (len(plain), len(worked)) in [(7, 5), (6, 5)]
    assert worked[0][2]["role"] == "assistant" and "##begin_quote##" in worked[0][2]["content"]
    assert ABSTAIN in worked[0][4]["content"]
    closed = [chat for chat in plain if "job_" in chat[1]["content"] and "def " not in str(chat)]
    assert closed and closed[0][1]["content"].startswith("Question: ")


def test_a_run_that_was_stopped_asks_only_the_rest(trained: Path, tmp_path: Path) -> None:
    server = OpenAIServer(lambda chat: "x")
    sides = {"sides": ["openai:m"], "conditions": ["given"], "url": server.url}
    try:
        judge(trained, tmp_path, **sides, answer_rows=3)
        assert len(server.requests) == 3
        judge(trained, tmp_path, **sides, answer_rows=5)
        assert len(server.requests) == 5
    finally:
        server.close()


def test_what_was_answered_is_not_generated_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = judge(trained, tmp_path, sides=["base", "tuned"])
    before = (tmp_path / "raft.jsonl").read_bytes()

    def fail(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(generation, "generate", fail)
    monkeypatch.setattr("forge_cli.models.answer_losses.answer_losses", fail)
    assert judge(trained, tmp_path, sides=["base", "tuned"]) == first
    assert (tmp_path / "raft.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("side", "says"),
    [
        ("best", "'best' is not known"),
        ("base+shots", "is not known"),
        ("base+examples+examples", "is not known"),
        ("checkpoint:999", "step-00000999.safetensors: no such file"),
        ("missing.gguf", "missing.gguf: no such file"),
        ("", "is not known"),
    ],
)
def test_sides_that_there_are_none_of(trained: Path, side: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_side(SideSpec.parse(side), trained / "adapters", url=None, max_tokens=8)


def test_a_wrong_side_is_refused_before_any_is_asked(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'best' is not known"):
        judge(trained, tmp_path, sides=["base", "tuned", "best"])
    assert not (tmp_path / "cache").exists()


def test_without_test_rows_there_is_nothing_to_judge(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ForgeError, match="no rows of split test"):
        evaluate.run(ROWS[:8], adapters=trained / "adapters", out=tmp_path)


def test_the_report_tells_all_of_it(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "eval"
    pairs = judge(trained, out, sides=["base", "tuned"])
    verdict = decide(
        {f"{p.condition}.{p.metric}": p.found for p in pairs}, read_suite("raft").rules
    )
    page, text = write_reports(out, pairs, verdict, {"base": "tiny <b>"})
    html = page.read_text()
    assert f"{verdict.outcome}</span></h1>" in html and "tiny &lt;b&gt;" in html
    answered = [line for line in lines(out) if "text" in line["sides"]["base"]]
    assert html.count('class="row"') == len(answered)
    assert "http" not in html, "a page of its own"
    table = text.read_text()
    assert table.startswith(f"# Verdict: {verdict.outcome}")
    rows = [line for line in table.splitlines() if line.startswith("| given | answer_loss |")]
    assert len(rows) == 1 and f"{pairs[0].found.difference:+.3f}" in rows[0]


def test_quotes_are_marked_by_where_they_stand() -> None:
    documents = [
        {"text": "x = 1 < 2", "oracle": True}, {"text": "y = 2", "oracle": False},
    ]  # fmt: skip
    quotes = "".join(
        f"##begin_quote##\n{q}\n##end_quote##" for q in ("x = 1 < 2", "y = 2", "<script>")
    )
    marked = _marked(f"##Reason: r {quotes}\n##Answer: 1", documents)
    assert '<mark class="right" title="in the right document">x = 1 &lt; 2</mark>' in marked
    assert '<mark class="wrong" title="in a wrong document">y = 2</mark>' in marked
    assert '<mark class="madeup" title="in no document">&lt;script&gt;</mark>' in marked


@pytest.mark.parametrize(
    ("scores", "winner"),
    [
        ({"a": {"exact_match": 1.0}, "b": {"exact_match": 0.0}}, "a"),
        ({"a": {"exact_match": 1.0}, "b": {"exact_match": 1.0}}, ""),
        (
            {
                "a": {"exact_match": 0.0, "answer_f1": 0.1},
                "b": {"exact_match": 0.0, "answer_f1": 0.2},
            },
            "b",
        ),
        ({"a": {"exact_match": 1.0}, "b": {}}, ""),
    ],
)
def test_who_won_a_row(scores: dict[str, Any], winner: str) -> None:
    assert _winner({"sides": scores}, ["a", "b"]) == winner
