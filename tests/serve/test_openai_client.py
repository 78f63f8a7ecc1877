"""The official client drives a whole fine-tune of a tiny real model, and talks to the result."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai_serving import serving, working

from forge_cli.serve.services import Services
from tiny_train import save_model

CHATS = "".join(
    json.dumps(
        {
            "messages": [
                {"role": "system", "content": "Answer briefly."},
                {"role": "user", "content": f"What is {n} and one?"},
                {"role": "assistant", "content": f"It is {n + 1}."},
                {"role": "user", "content": [{"type": "text", "text": "And one more?"}]},
                {"role": "assistant", "content": f"{n + 2}", "weight": n % 2},
            ]
        }
    )
    + "\n"
    for n in range(12)
)
QUICK = {"rank": 4, "layers": 0, "max_tokens": 256, "quant": ["f16"], "valid_every": 2}


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[openai.OpenAI, Services, Path]]:
    folder = tmp_path_factory.mktemp("openai")
    model = save_model(folder / "tiny", max_position_embeddings=2048)
    with serving(folder) as (url, found):
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0), found, model


@pytest.fixture(scope="module")
def done(place: tuple[openai.OpenAI, Services, Path]) -> tuple[openai.OpenAI, Any, Services]:
    client, found, model = place
    file = client.files.create(file=("chats.jsonl", CHATS.encode()), purpose="fine-tune")
    assert (file.status, file.filename, file.bytes) == ("processed", "chats.jsonl", len(CHATS))
    assert client.files.content(file.id).content == CHATS.encode()
    job = client.fine_tuning.jobs.create(
        model=str(model), training_file=file.id, suffix="sums", seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": {
            "n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 2.0}}},
        metadata={"team": "a"}, extra_body={"options": QUICK},
    )  # fmt: skip
    assert (job.status, job.fine_tuned_model, job.finished_at) == ("queued", None, None)
    with pytest.raises(openai.ConflictError, match="needs it"):
        client.files.delete(file.id)
    with working(found):
        deadline = time.monotonic() + 120
        while job.status in ("queued", "running"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
            job = client.fine_tuning.jobs.retrieve(job.id)
    log = "".join(found.store.blocks("l", job.id))
    assert job.status == "succeeded", (job.error, log)
    return client, job, found


def test_a_whole_fine_tune(done: tuple[openai.OpenAI, Any, Services]) -> None:
    client, job, found = done
    assert job.fine_tuned_model == f"ft:tiny:sums:{job.id}" and job.trained_tokens > 100
    how = job.hyperparameters
    assert (how.n_epochs, how.batch_size, how.learning_rate_multiplier) == (2, 4, 2.0)
    assert (job.seed, job.metadata, job.error) == (7, {"team": "a"}, None)
    events = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    steps = [event for event in events if event.type == "metrics"][::-1]
    assert [event.data["step"] for event in steps] == list(range(len(steps)))
    first = client.fine_tuning.jobs.list_events(job.id, limit=2)
    assert [e.id for e in first] == [e.id for e in events], "the client pages through them"
    assert events[0].message == "The job has succeeded"
    assert events[-1].message == "The job is queued"
    [kept] = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert kept.fine_tuned_model_checkpoint == job.fine_tuned_model
    valid = {e.data["step"]: e.data["valid_loss"] for e in steps if "valid_loss" in e.data}
    assert kept.metrics.full_valid_loss == pytest.approx(min(valid.values()))
    assert valid[kept.step_number] < valid[0] / 2, "it has learnt something"
    lines = (found.home / job.id / "examples.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    # One for each turn of the assistant, but for six of weight 0.
    assert len(rows) == 18 and {row["split"] for row in rows} == {"train", "valid"}


def test_chats_with_the_result(done: tuple[openai.OpenAI, Any, Services]) -> None:
    client, job, _ = done
    ask: Any = {
        "model": job.fine_tuned_model, "max_tokens": 8, "temperature": 0, "seed": 1,
        "messages": [{"role": "user", "content": "What is 3 and one?"}],
    }  # fmt: skip
    whole = client.chat.completions.create(**ask)
    assert whole.usage and whole.usage.completion_tokens <= 8
    parts = list(client.chat.completions.create(**ask, stream=True))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert len(parts) > 2 and text == whole.choices[0].message.content
    assert job.fine_tuned_model in [model.id for model in client.models.list()]
    assert client.models.retrieve(job.fine_tuned_model).owned_by == "forge"
    with pytest.raises(openai.BadRequestError, match="context"):
        long = [{"role": "user", "content": "word " * 5000}]
        client.chat.completions.create(**ask | {"messages": long})
    with pytest.raises(openai.NotFoundError, match="no job that has succeeded") as error:
        client.chat.completions.create(**ask | {"model": "ftjob-999999"})
    assert error.value.code == "model_not_found"
