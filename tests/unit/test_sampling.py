"""Draws follow the softmax, depend on their key alone, and are kept by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from forge_cli.core.records import Message
from forge_cli.models.sampling import Draw
from forge_cli.teachers.cache import Cached
from forge_cli.teachers.openai import OpenAITeacher
from openai_server import OpenAIServer

LOGITS = np.array([1.5, 0.0, 1.0, -1.0, 0.3])
# 99.9 % quantiles of χ² by degrees of freedom: seeds are fixed, so none of this is left to chance.
CHI2 = {4: 18.467, 16: 39.252}
# Of Draw(0.8, 3, "HumanEval/7", 2).
NOISE, SEED = [0.03206942899190387, 1.7315485276143365], 1542461522


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max())
    return raised / raised.sum()


def chi2(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.2, 0.8, 2.0])
@pytest.mark.parametrize("of", ["samples", "rows", "steps", "seeds"])
def test_frequencies_are_those_of_the_softmax(temperature: float, of: str) -> None:
    draws: dict[str, Callable[[int], tuple[Draw, int]]] = {
        "samples": lambda n: (Draw(temperature, 0, "a", n), 0),
        "rows": lambda n: (Draw(temperature, 0, str(n), 0), 0),
        "steps": lambda n: (Draw(temperature, 0, "a", 0), n),
        "seeds": lambda n: (Draw(temperature, n, "a", 0), 0),
    }
    picked = [draw.pick(LOGITS, step) for draw, step in map(draws[of], range(5000))]
    counts = np.bincount(picked, minlength=5)
    assert chi2(counts, 5000 * softmax(LOGITS / temperature)) < CHI2[4]


def test_one_token_says_nothing_of_the_next() -> None:
    pairs = np.zeros((5, 5))
    for n in range(5000):
        draw = Draw(1.5, 0, "a", n)
        pairs[draw.pick(LOGITS, 0), draw.pick(LOGITS, 1)] += 1
    alone = np.outer(pairs.sum(axis=1), pairs.sum(axis=0)) / pairs.sum()
    assert chi2(pairs, alone) < CHI2[16]


def test_noise_is_that_of_gumbel() -> None:
    noise = Draw(0.8, 0, "a", 0).noise(3, 100_000)
    # Mean γ, variance π²/6; five standard errors of the mean.
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=5 * np.pi / np.sqrt(6e5))
    assert noise.var() == pytest.approx(np.pi**2 / 6, rel=0.05)


def test_a_draw_is_the_same_everywhere() -> None:
    draw = Draw(0.8, 3, "HumanEval/7", 2)
    assert np.array_equal(draw.noise(4, 300)[:200], Draw(0.8, 3, "HumanEval/7", 2).noise(4, 200))
    assert draw.pick(LOGITS, 0) == draw.pick(LOGITS + 40, 0)
    # What was drawn once stays so: answers of other machines and releases are compared with it.
    assert draw.noise(0, 2).tolist() == pytest.approx(NOISE, rel=1e-12)
    assert draw.server_seed == SEED and 0 <= SEED < 2**31
    # What may be different is different.
    others = [Draw(0.8, 4, draw.row, 2), Draw(0.8, 3, "HumanEval/8", 2), Draw(0.8, 3, draw.row, 1)]
    for other in others:
        assert not np.intersect1d(draw.noise(0, 100), other.noise(0, 100)).size
        assert draw.server_seed != other.server_seed
    assert not np.intersect1d(draw.noise(0, 1000), draw.noise(1, 1000)).size


PROMPT = [Message(role="user", content="Write.")]


def sample(who: Cached[OpenAITeacher], draws: Sequence[Draw]) -> list[str]:
    found: dict[int, str] = {}
    who.sample([PROMPT] * len(draws), draws, lambda n, made: found.update({n: made.text}))
    return [found[n] for n in range(len(draws))]


def test_samples_are_kept_by_temperature_seed_row_and_number(tmp_path: Path) -> None:
    server = OpenAIServer(lambda body: f"{body['temperature']} {body['seed']}", whole=True)
    first = Draw(0.8, 0, "a", 0)
    draws = [first, Draw(0.8, 0, "a", 1), Draw(0.8, 0, "b", 0), Draw(0.8, 1, "a", 0)]
    draws.append(Draw(0.5, 0, "a", 0))
    try:
        who = Cached(OpenAITeacher("openai:m", "m", server.url, backoff=0), tmp_path)
        assert sample(who, draws) == [f"{d.temperature} {d.server_seed}" for d in draws]
        assert len(server.requests) == 5 and who.usage.cached == 0
        assert sample(who, draws[::-1])[-1] == f"0.8 {first.server_seed}"
        assert len(server.requests) == 5 and who.usage.cached == 5
        assert sample(who, [*draws, Draw(0.8, 0, "a", 2)]) and len(server.requests) == 6
    finally:
        server.close()


def test_the_key_of_a_greedy_answer_is_what_it_was(tmp_path: Path) -> None:
    server = OpenAIServer(lambda body: str("seed" in body), whole=True)
    try:
        who = Cached(OpenAITeacher("openai:m", "m", server.url, backoff=0), tmp_path)
        found: list[str] = []
        who.complete([PROMPT], lambda _, made: found.append(made.text))
        sample(who, [Draw(0.8, 0, "a", 0)])
    finally:
        server.close()
    assert found == ["False"] and server.requests[0]["temperature"] == 0
    parameters = {"url": server.url, "temperature": 0, "max_tokens": 1024}
    told = json.dumps(["openai:m", parameters, [["user", "Write."]]], sort_keys=True)
    keys = [json.loads(line)["key"] for line in who.file.read_text().splitlines() if line]
    assert keys[0] == hashlib.sha256(told.encode()).hexdigest() and len(set(keys)) == 2


def test_a_server_that_takes_no_seed_is_asked_without() -> None:
    server = OpenAIServer(lambda body: str(sorted(body)), whole=True)
    server.faults.append((400, {"error": {"message": "unknown", "param": "seed"}}))
    try:
        found: list[str] = []
        who = OpenAITeacher("openai:m", "m", server.url, backoff=0)
        who.sample([PROMPT], [Draw(0.8, 0, "a", 0)], lambda _, made: found.append(made.text))
    finally:
        server.close()
    assert found == ["['max_tokens', 'messages', 'model', 'temperature']"]
