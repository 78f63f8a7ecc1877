"""pass@k from samples, end to end: servers whose answers are counted by hand, and real models."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_sides import ROWS

from forge_cli import evaluate, export, train
from forge_cli.core.config import checked
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.records import Message
from forge_cli.evaluate import generation
from forge_cli.evaluate.humaneval import make_rows
from forge_cli.evaluate.report import write_reports
from forge_cli.evaluate.sandbox import why_not
from forge_cli.evaluate.sides import Side, SideSpec, open_side
from forge_cli.evaluate.statistics.verdict import decide
from forge_cli.evaluate.suites import read_suite
from forge_cli.models.sampling import Draw
from openai_server import OpenAIServer
from tiny_train import save_model

contained = pytest.mark.skipif(bool(why_not()), reason=f"cannot contain code: {why_not()}")
PROBLEMS = make_rows(2, 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    model = str(save_model(folder / "model", max_position_embeddings=8192))
    train.run(
        ROWS, out=folder, model=model, rank=4, layers=0, steps=2, learning_rate=5e-3,
        valid_every=2, max_tokens=8192,
    )  # fmt: skip
    export.run(
        adapters=folder / "adapters", out=folder / "export", name="m", quants=["f16"], parity=False
    )
    return folder


def judge(trained: Path, out: Path, **changes: Any) -> list[evaluate.Pair]:
    settings: dict[str, Any] = {
        "conditions": ["humaneval"], "execute": True, "answer_rows": 2, "condition_rows": 2,
        "resamples": 1000,
    }  # fmt: skip
    return evaluate.run(ROWS, adapters=trained / "adapters", out=out, **settings | changes)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "raft.jsonl").read_text().splitlines()]


class Script:
    """Answers a problem rightly so many times, the first ones, and then wrongly."""

    def __init__(self, right: dict[str, list[int]]) -> None:
        self.right = right  # by model: of each problem
        self.asked: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"]
        problem = next(n for n, one in enumerate(PROBLEMS) if one.question == asked)
        place = body["model"], problem
        with self._lock:
            self.asked[place] += 1
            right = self.asked[place] <= self.right[body["model"]][problem]
        return PROBLEMS[problem].messages[-1].content if right else "    return None\n"


@contained
def test_pass_at_k_of_scripted_servers(trained: Path, tmp_path: Path) -> None:
    script = Script({"a": [3, 0], "b": [1, 10]})
    server = OpenAIServer(script, whole=True)
    how: dict[str, Any] = {"sides": ["openai:a", "openai:b"], "url": server.url}
    try:
        pairs = judge(trained, tmp_path, **how, samples=10)
        assert len(server.requests) == 40
        assert judge(trained, tmp_path, **how, samples=10) == pairs
        assert len(server.requests) == 40, "nothing is asked again"
        kept = json.loads((tmp_path / "pairs.json").read_text())
        rows = lines(tmp_path)
        judge(trained, tmp_path, **how, samples=12)
        assert len(server.requests) == 48, "only what is missing"
        more = lines(tmp_path)
        judge(trained, tmp_path, **how)
    finally:
        server.close()
    bodies = server.requests
    assert {body["temperature"] for body in bodies[:48]} == {0.8}
    assert len({body["seed"] for body in bodies[:48]}) == 24, "the sides draw alike"
    assert [(b["temperature"], "seed" in b) for b in bodies[48:]] == [(0, False)] * 4
    # (3/10 + 0)/2 and (1/10 + 1)/2; of ten all are tried: any right one is enough.
    found = {pair["metric"]: (pair["found"]["base"], pair["found"]["tuned"]) for pair in kept}
    assert found == {"pass@1": pytest.approx((0.15, 0.55)), "pass@10": pytest.approx((0.5, 1.0))}
    own = {row["id"]: row["sides"]["openai:a"] for row in rows}
    first = own[PROBLEMS[0].id]
    assert first.pop("text") in (PROBLEMS[0].messages[-1].content, "    return None\n")
    assert first == {"pass@1": pytest.approx(0.3), "pass@10": 1, "correct": 3, "samples": 10}
    # One of twelve: 1 − C(11, 10)/C(12, 10) = 1 − 11/66.
    twelve = {row["id"]: row["sides"]["openai:b"] for row in more}[PROBLEMS[0].id]
    assert twelve["pass@10"] == pytest.approx(55 / 66) and twelve["correct"] == 1
    greedy = lines(tmp_path)[0]["sides"]["openai:a"]
    assert greedy == {"text": "    return None\n", "pass@1": 0.0}


@contained
def test_a_stopped_run_asks_only_the_rest(trained: Path, tmp_path: Path) -> None:
    script = Script({"a": [3, 0]})
    server = OpenAIServer(script, whole=True)
    how: dict[str, Any] = {"sides": ["openai:a"], "url": server.url, "samples": 10}
    # The seventh request is refused for good: what was answered before is kept.
    good = [(200, {"choices": [{"message": {"content": "x"}}]})] * 6
    server.faults.extend([*good, (400, {"error": {"message": "as told"}})])
    try:
        with pytest.raises(ForgeError, match=r"no answer to row HumanEval/\d+: HTTP 400"):
            judge(trained, tmp_path, **how)
        cache = next((tmp_path / "cache").glob("*.jsonl"))
        kept = keys(cache)
        judge(trained, tmp_path, **how)
    finally:
        server.close()
    assert len(kept) >= 3, "all but what was under way"
    # Requests do not tell: some of the first run may reach the server after it has ended.
    both = keys(cache)
    assert both[: len(kept)] == kept and len(both) == len(set(both)) == 20


def keys(cache: Path) -> list[str]:
    return [json.loads(line)["key"] for line in cache.read_text().splitlines() if line]


@contained
def test_samples_of_a_tuned_model(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"sides": ["base", "tuned"], "samples": 10, "condition_rows": 1}
    pairs = judge(trained, tmp_path / "one", **how)
    assert [pair.metric for pair in pairs] == ["pass@1", "pass@10"]
    judge(trained, tmp_path / "two", **how)
    rows = (tmp_path / "one" / "raft.jsonl").read_bytes()
    assert (tmp_path / "two" / "raft.jsonl").read_bytes() == rows, "drawn by seed"
    for side in lines(tmp_path / "one")[0]["sides"].values():
        assert side["samples"] == 10 and side["correct"] == 0
    verdict = decide(
        {f"{p.condition}.{p.metric}": p.found for p in pairs}, read_suite("humaneval").rules
    )
    page, _ = write_reports(tmp_path / "one", pairs, verdict, {})
    assert "correct 0 of 10 answers, the first is shown" in page.read_text()

    def fail(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(generation, "generate", fail)
    assert judge(trained, tmp_path / "one", **how) == pairs


def draw_on(side: Side, draws: list[Draw]) -> list[str]:
    prompt = [Message(role="user", content="What is `a`?")]
    found: dict[int, str] = {}
    side.sample([prompt] * len(draws), draws, lambda n, made: found.update({n: made.text}))
    return [found[n] for n in range(len(draws))]


def test_llama_cpp_draws_as_mlx_does(trained: Path) -> None:
    file = str(next((trained / "export").glob("*f16*.gguf")))
    draws = [Draw(0.8, 0, "a", n) for n in range(12)]
    gguf, tuned = (
        open_side(SideSpec.parse(text), trained / "adapters", url=None, max_tokens=6)
        for text in (file, "tuned")
    )
    ours, theirs = draw_on(tuned, draws), draw_on(gguf, draws)
    assert draw_on(gguf, draws[::-1]) == theirs[::-1], "in any order"
    assert len(set(theirs)) == 12
    # The file is float16: where two tokens are near each other, another may win.
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 9
    gguf.close()
    tuned.close()


@pytest.mark.parametrize("samples", [0, 201])
def test_how_many_samples_there_may_be(samples: int) -> None:
    with pytest.raises(UsageError, match="samples"):
        checked({"samples": samples}, {"samples": "flag"})
