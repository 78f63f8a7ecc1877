"""Weights of reason, quote and answer tokens: each token gets that of the text it begins in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_shared_context import rows

from forge_cli import train
from forge_cli.core.answer_form import parts_of, write_answer
from forge_cli.core.records import Answer, Message, Quote
from forge_cli.models.backend import mx
from forge_cli.models.chat import tokenise
from forge_cli.models.load import load_tokenizer
from forge_cli.models.resolve import resolve
from forge_cli.models.shared_context import group_rows, token_losses
from forge_cli.models.spans import SpanWeights, weigh
from forge_cli.train.micro_batches import as_batch, group_loss, split_batch
from tiny_train import examples, random_model, save_model

ANSWER = Answer(
    reason="[2] café.py says so.",
    quotes=[Quote(document="a", text="x = 1\n    y"), Quote(document="a", text="ß → z")],
    final="It is `1`.",
)
WEIGHTS = SpanWeights(reason=0.25, quote=3.0, answer=7.0)


def test_the_parts_cover_the_answer() -> None:
    text = write_answer(ANSWER)
    parts = parts_of(text)
    assert [name for name, _, _ in parts] == [
        "reason",
        "quote",
        "reason",
        "quote",
        "reason",
        "answer",
    ]
    assert "".join(text[start:end] for _, start, end in parts) == text
    said = {name: [text[a:b] for n, a, b in parts if n == name] for name, _, _ in parts}
    assert said["quote"][0] == "##begin_quote##\nx = 1\n    y\n##end_quote##"
    assert said["answer"] == ["##Answer: It is `1`."]
    assert parts_of("no form at all") == [("reason", 0, 14)]
    assert parts_of("") == []


@pytest.mark.parametrize("kind", ["tiny", "smollm2-135m"])
def test_each_token_has_the_weight_of_its_part(tmp_path: Path, kind: str) -> None:
    path = save_model(tmp_path) if kind == "tiny" else resolve(kind)
    tokenizer = load_tokenizer(path)
    text = write_answer(ANSWER)
    messages = [
        # The question holds the answer's text too: the last place counts.
        Message(role="user", content=f"Why?\n{text}"),
        Message(role="assistant", content=text),
    ]
    row = weigh(tokenizer, messages, tokenise(tokenizer, messages), WEIGHTS)
    assert len(row.weights) == row.supervised
    said: dict[float, str] = {}
    for token, weight in zip(row.ids[row.start :], row.weights, strict=True):
        said[weight] = said.get(weight, "") + repr(tokenizer.convert_ids_to_tokens(token))
    assert set(said) == {0.25, 3.0, 7.0, 1.0}
    # The last token is the end of turn, in no part.
    assert row.weights[-1] == 1.0 and list(row.weights).count(1.0) == 1
    answer_ids = [t for t, w in zip(row.ids[row.start :], row.weights, strict=True) if w == 7.0]
    assert tokenizer.decode(answer_ids).strip() == "##Answer: It is `1`."
    quote_ids = [t for t, w in zip(row.ids[row.start :], row.weights, strict=True) if w == 3.0]
    assert "ß → z" in tokenizer.decode(quote_ids) and "café" not in tokenizer.decode(quote_ids)


def weighted() -> Any:
    rng = np.random.default_rng(4)
    given = rows()
    return group_rows([type(r)(r.ids, r.start, rng.random(r.supervised).tolist()) for r in given])


def test_the_loss_is_the_weighted_mean() -> None:
    model, group = random_model("llama"), weighted()
    losses = np.array(token_losses(model, group), np.float64)
    total, count = group_loss(model, group)
    weights = np.array(group.weights, np.float64)
    assert float(total) == pytest.approx((losses * weights).sum(), rel=1e-5)
    assert float(count) == pytest.approx(weights.sum(), rel=1e-6)


def test_parts_of_a_weighted_batch_add_up() -> None:
    model, group = random_model("llama"), weighted()
    batch = as_batch(group, ["a", "b", "c", "d"])
    parts = split_batch(batch, batch.tokens // 2)
    assert len(parts) > 1
    pairs = [group_loss(model, part.data) for part in parts]
    whole = group_loss(model, group)
    for index in (0, 1):
        assert sum(float(pair[index]) for pair in pairs) == pytest.approx(
            float(whole[index]), rel=1e-5
        )


def test_training_follows_the_weights(tmp_path: Path) -> None:
    model = str(save_model(tmp_path / "model"))
    settings: dict[str, Any] = {
        "rank": 4, "steps": 2, "learning_rate": 5e-3, "layers": 0,
        "targets": ("q_proj", "down_proj"),
    }  # fmt: skip
    found = {}
    for name, extra in {
        "sft": {}, "even": {"loss": "raft", "span_weights": (1, 1, 1)}, "raft": {"loss": "raft"},
        "smoothed": {"label_smoothing": 0.3}, "z": {"z_loss": 0.1},
    }.items():  # fmt: skip
        train.run(examples(), out=tmp_path / name, model=model, **settings, **extra)
        found[name] = mx.load(str(tmp_path / name / "adapters" / "adapters.safetensors"))
    distance = {
        name: max(float(mx.abs(value - found["sft"][key]).max()) for key, value in arrays.items())
        for name, arrays in found.items()
    }
    assert distance["even"] < 1e-6 < min(distance[n] for n in ("raft", "smoothed", "z"))
