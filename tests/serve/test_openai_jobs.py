"""Fine-tuning jobs as OpenAI's client asks for them: what is taken, and what is refused why."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai_serving import serving

from forge_cli.core.records import Example, Message, Origin, Preference
from forge_cli.serve.app import create_app
from forge_cli.serve.jobs import JobStore, Spec
from forge_cli.serve.jobs.command import environment_of
from forge_cli.serve.jobs.files import FileStore, rows_to_train
from forge_cli.serve.jobs.rows import check_rows
from forge_cli.serve.jobs.sources import Allowed
from forge_cli.serve.jobs.storage import open_storage
from forge_cli.serve.services import Services
from tiny_train import examples

Place = tuple[openai.OpenAI, Services, dict[str, str]]


def chats(count: int, start: int = 0) -> bytes:
    turns = [
        [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]
        for n in range(start, start + count)
    ]
    return "".join(json.dumps({"messages": turn}) + "\n" for turn in turns).encode()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    pair = Preference(
        messages=[Message(role="user", content="?")], chosen="a", rejected="b",
        origin=Origin(kind="k", chunk="c"),
    )  # fmt: skip
    rows = {
        "chats": chats(12), "more": chats(3, start=90), "one": chats(1) * 3,
        "examples": b"".join(e.model_dump_json().encode() + b"\n" for e in examples()),
        "pairs": pair.model_dump_json().encode(),
    }  # fmt: skip
    with serving(tmp_path_factory.mktemp("jobs")) as (url, found):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        sent = {
            name: client.files.create(file=(name, data), purpose="fine-tune").id
            for name, data in rows.items()
        }
        yield client, found, sent


def create(place: Place, file: str = "chats", **more: Any) -> Any:
    client, _, files = place
    more = {"model": "smollm2-135m"} | more
    return client.fine_tuning.jobs.create(training_file=files[file], **more)


def test_they_are_the_jobs_of_the_service(place: Place) -> None:
    client, found, files = place
    hyper: Any = {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 1}
    job = create(place, hyperparameters=hyper, seed=5, validation_file=files["more"])
    own = found.store.find(job.id)
    assert own and own.spec.export and own.spec.source == files["chats"]
    assert own.spec.options == {
        "model": "smollm2-135m", "seed": 5, "epochs": 3.0, "accumulate": 2, "packing": False,
    }  # fmt: skip
    data = rows_to_train(files["chats"], own.spec.validation, own.spec.options, found.store)
    splits = [Example.model_validate_json(line).split for line in data.splitlines()]
    assert splits == ["train"] * 12 + ["valid"] * 3
    other, _ = found.store.create(Spec(source="/repo", options={"epochs": 0.5}, priority=0))
    seen = client.fine_tuning.jobs.retrieve(other.id)
    assert (seen.training_file, seen.model) == ("/repo", "smollm2-135m")
    assert seen.hyperparameters.n_epochs == 0.5


def test_auto_is_left_to_forge(place: Place) -> None:
    _, found, _ = place
    auto: Any = dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier"), "auto")
    job = create(place, hyperparameters=auto)
    own = found.store.find(job.id)
    assert own and own.spec.options == {"model": "smollm2-135m"}
    assert job.hyperparameters.model_dump() == auto


def test_paused_resumed_cancelled(place: Place) -> None:
    client, _, _ = place
    job = create(place)
    jobs = client.fine_tuning.jobs
    assert jobs.pause(job.id).status == "paused" and jobs.resume(job.id).status == "queued"
    job = jobs.cancel(job.id)
    assert job.status == "cancelled" and job.finished_at and job.fine_tuned_model is None
    with pytest.raises(openai.ConflictError, match="is cancelled, which one cannot cancel"):
        jobs.cancel(job.id)
    said = [event.message for event in jobs.list_events(job.id)]
    assert said[-1] == "The job is queued" and len(said) == 4
    assert jobs.checkpoints.list(job.id).data == []
    with pytest.raises(openai.NotFoundError, match="Job not found"):
        jobs.retrieve("ftjob-999999")


def test_the_rest_routes_know_at_once(tmp_path: Path) -> None:
    found = Services(
        JobStore(open_storage(f"sqlite:///{tmp_path}/jobs.db")), tmp_path, Allowed([tmp_path])
    )
    data = chats(2)
    file = FileStore(found.store).add(
        io.BytesIO(data), check_rows(io.BytesIO(data), 2), filename="a", purpose="fine-tune",
        created=0,
    )  # fmt: skip

    async def drive() -> list[list[str]]:
        # Without its lifespan the app never looks at the queue: it knows what it was told alone.
        app = httpx.ASGITransport(create_app(found))
        async with httpx.AsyncClient(transport=app, base_url="http://localhost") as client:
            body = {"model": "smollm2-135m", "training_file": file.id}
            job = (await client.post("/v1/fine_tuning/jobs", json=body)).json()
            seen = []
            for what in ("", "pause", "resume", "cancel"):
                if what:
                    await client.post(f"/v1/fine_tuning/jobs/{job['id']}/{what}")
                listed = (await client.get("/jobs")).json()["jobs"]
                one = (await client.get(f"/jobs/{job['id']}")).json()
                seen.append([one["state"], *(each["state"] for each in listed)])
            return seen

    states = ["queued", "paused", "queued", "cancelled"]
    assert asyncio.run(drive()) == [[state] * 2 for state in states]
    found.store.storage.close()


def test_pages_and_metadata(place: Place) -> None:
    client, _, _ = place
    made = [create(place, metadata={"run": f"{n % 2}"}).id for n in range(5)]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)][:5] == made[::-1]
    page = client.fine_tuning.jobs.list(limit=2, after=made[3])
    assert [job.id for job in page.data] == [made[2], made[1]] and page.has_more
    some = client.fine_tuning.jobs.list(metadata={"run": "1"}, limit=1)
    assert [job.id for job in some] == [made[3], made[1]]


def test_a_number_may_come_as_text(place: Place) -> None:
    job = create(place, extra_body={"options": {"epochs": "1.5", "accumulate": "2"}})
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (1.5, 2)
    own = place[1].store.find(job.id)
    assert own and environment_of(own)["FORGE_EPOCHS"] == '"1.5"', "quoted once"


def test_one_key_makes_one_job(place: Place) -> None:
    headers = {"Idempotency-Key": "k1"}
    assert create(place, extra_headers=headers).id == create(place, extra_headers=headers).id
    with pytest.raises(openai.ConflictError, match="used for another request"):
        create(place, seed=9, extra_headers=headers)


def test_preferences_train_by_dpo(place: Place) -> None:
    _, found, _ = place
    method: Any = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}
    job = create(place, "pairs", method=method)
    own = found.store.find(job.id)
    assert own and (own.spec.options["loss"], own.spec.options["beta"]) == ("dpo", 0.2)
    assert job.method.type == "dpo"


@pytest.mark.parametrize(
    ("more", "param", "said"),
    [
        ({"file": "one"}, "training_file", "another is needed to validate on"),
        ({"validation_file": "/etc/passwd"}, "validation_file", "pattern"),
        ({"file": "pairs"}, "method.type", "supervised does not train on preference rows"),
        ({"method": {"type": "dpo"}}, "method.type", "dpo does not train on chat rows"),
        ({"method": {"type": "reinforcement"}}, "method.type", "'supervised' or 'dpo'"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", "0 it"),
        ({"suffix": "../x"}, "suffix", "pattern"),
        ({"seed": -1}, "seed", "greater than or equal"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "greater"),
        ({"metadata": {"openai.suffix": "x"}}, "metadata.openai.suffix", "no openai"),
        ({"extra_body": {"options": {"stepz": 1}}}, None, "options.stepz: unknown setting"),
        ({"extra_body": {"options": {"execute": True}}}, None, "not open to jobs"),
        ({"extra_body": {"nonsense": 1}}, "nonsense", "Extra inputs"),
        (
            {"model": "org/far", "hyperparameters": {"learning_rate_multiplier": 2}},
            "hyperparameters.learning_rate_multiplier",
            "is known when the model is here",
        ),
        (
            {"model": "x" * 300, "hyperparameters": {"learning_rate_multiplier": 2}},
            "model",
            "not a model that can be read",
        ),
        ({"extra_body": {"options": {"epochs": "1e999"}}}, None, "options.epochs: not a finite"),
        (
            {"method": {"type": "dpo", "dpo": {"hyperparameters": {"gamma": 1}}}},
            "method.dpo.hyperparameters.gamma",
            "Extra inputs",
        ),
    ],
)
def test_what_cannot_be_is_said(
    place: Place, more: dict[str, Any], param: str | None, said: str
) -> None:
    _, found, _ = place
    before = found.store.count()
    with pytest.raises(openai.BadRequestError) as error:
        create(place, **more)
    assert said in str(error.value) and error.value.type == "invalid_request_error"
    if param:
        assert str(error.value.param).startswith(param), error.value.param
    assert found.store.count() == before


@pytest.mark.parametrize("name", ["training_file", "validation_file"])
def test_a_file_that_is_not_there(place: Place, name: str) -> None:
    client, _, files = place
    more: Any = {"training_file": files["chats"], name: "file-" + "0" * 24}
    with pytest.raises(openai.NotFoundError, match="no such file") as error:
        client.fine_tuning.jobs.create(model="smollm2-135m", **more)
    assert error.value.param == name


def test_records_keep_their_own_splits(place: Place, tmp_path: Path) -> None:
    _, found, files = place
    data = rows_to_train(files["examples"], "", {}, found.store)
    rows = [Example.model_validate_json(line) for line in data.splitlines()]
    assert rows == examples()
    both = rows_to_train(files["examples"], files["examples"], {}, found.store)
    splits = [Example.model_validate_json(line).split for line in both.splitlines()]
    assert splits == ["train"] * 11 + ["valid"] * 11
