"""Training by a `forge serve`: the rows go there, the adapters come back.

Mining, judging, gates and deploying stay here. The service needs the base model, and for a
training that goes on from adapters their run below one of its `--allow` folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import atomic_file
from forge_cli.core.run_dir import RunDir
from forge_cli.serve.client import Client

# Files of a job's run that training wrote, as this run has them.
_FETCHED = ("adapters/", "metrics.jsonl", "report.html")
_ENDED = ("succeeded", "failed", "cancelled")


def fit_there(url: str, run: RunDir, reporter: Reporter) -> None:
    """What `pipeline.fit` does, by a service; called again it goes on with the same job.

    Raises:
        ForgeError: the service is not there (transient), refuses, or its job failed.
    """
    if run.is_done("train"):
        return
    client = Client(url)
    job = _job(client, run, reporter)
    state, told = _follow(client, job, reporter)
    if state != "succeeded":
        run.state.pop("service", None)
        run.save()
        raise ForgeError(
            f"{url}: {job} {state}: {told.get('error') or 'no reason given'}",
            told.get("hint") or f"see: forge jobs logs {job} --url {url}",
        )
    for found in client.json("GET", f"/jobs/{job}/artifacts")["artifacts"]:
        if str(found["path"]).startswith(_FETCHED):
            _fetch(client, found, run.path / found["path"])
    train = told["result"]["metrics"]["train"]
    run.record(train=train)
    run.finish("train", service=url, job=job)
    reporter.note(f"trained by {url} as {job}: {train['steps']} steps")


def _job(client: Client, run: RunDir, reporter: Reporter) -> str:
    """The job that trains this run: the one that was begun, or a new one."""
    if known := run.state.get("service"):
        return str(known["job"])
    rows = run.file("data", "examples.jsonl")
    file = client.upload(f"{run.path.name}.jsonl", rows.read_bytes())["id"]
    body = {
        "source": file,
        "options": _options(run),
        "tags": {"guard": run.path.name},
    }
    job = str(client.json("POST", "/fine-tune", body=body, key=f"guard-{file}")["id"])
    run.state["service"] = {"url": client.url, "job": job}
    run.save()
    reporter.note(f"{client.url}: {job} trains")
    return job


def _options(run: RunDir) -> dict[str, Any]:
    """The settings of the run that are not the defaults and are open to jobs."""
    from forge_cli.core.config import Settings

    closed = {"execute", "test_command", "hosts", "host", "teacher", "teacher_url"}
    fields = Settings.model_fields
    own = run.state["settings"] | run.state.get("update", {}).get("settings", {})
    return {
        name: value
        for name, value in own.items()
        if name not in closed and value != fields[name].get_default(call_default_factory=True)
    }


def _follow(client: Client, job: str, reporter: Reporter) -> tuple[str, dict[str, Any]]:
    """Its state and view at the end."""
    with reporter.task(f"{job} at {client.url}") as task:
        for kind, data in client.events(job):
            if kind == "removed":
                break
            if kind == "log":
                task.advance(0, detail=data["text"].strip().rpartition("\n")[2][:60])
            if kind == "job" and data["state"] in _ENDED:
                return str(data["state"]), data
    raise ForgeError(f"{client.url}: {job} is gone", "see: forge jobs ls")


def _fetch(client: Client, found: dict[str, Any], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as stream:
        for block in client.blocks(found["link"]):
            stream.write(block)
