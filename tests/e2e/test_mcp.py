"""A real MCP client drives Forge over stdio: mine → train → evaluate → export → deploy."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import jsonschema
import pytest
from mcp import ClientSession, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import CallToolResult, Tool

from forge_cli.core.run_dir import RunDir
from ollama_server import OllamaServer
from tiny_train import save_model

Drive = Callable[["Client"], Awaitable[None]]
SRC = Path(__file__).parents[2] / "src"


class Client:
    """A session with `forge mcp`, which remembers every tool's structured result."""

    def __init__(self, session: ClientSession, tools: list[Tool]) -> None:
        self.session = session
        self.tools = {tool.name: tool for tool in tools}
        self.found: dict[str, dict[str, Any]] = {}

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The result, which must be of the tool's own schema."""
        said = await self.session.call_tool(tool, arguments)
        assert not said.is_error, text_of(said)
        found = dict(said.structured_content)
        jsonschema.validate(found, self.tools[tool].output_schema or {})
        assert json.loads(text_of(said)) == found
        self.found[tool] = found
        return found

    async def refused(self, tool: str, **arguments: Any) -> str:
        """What an error says."""
        said = await self.session.call_tool(tool, arguments)
        assert said.is_error, text_of(said)
        assert "hint: " in text_of(said) and "Traceback" not in text_of(said)
        return text_of(said)

    async def confirmed(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Both calls of a tool that asks for confirmation; the result of its task."""
        asked = await self.call(tool, **arguments)
        assert asked["state"] == "needs confirmation" and "task" not in asked
        token = asked["confirmation"]["token"]
        return await self.done(await self.call(tool, **arguments, confirmation=token))

    async def done(self, task: dict[str, Any]) -> dict[str, Any]:
        """Wait for a task; its result."""
        while task["state"] == "running":
            task = await self.call("task_status", task=task["task"], wait_seconds=30)
        assert task["state"] == "done", task
        return await self.call("task_result", task=task["task"])


def text_of(said: CallToolResult) -> str:
    return said.content[0].text  # type: ignore[union-attr]


def session(place: Path, drive: Drive, *options: str, **env: str) -> Client:
    """Start the server, drive it, and go away."""
    kept: list[Client] = []
    told = {"PYTHONPATH": str(SRC), "FORGE_DATA": str(place / "data"), **env}
    told |= {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "forge_cli", "mcp", *options], env=told, cwd=place
    )

    async def run() -> None:
        async with stdio_client(server) as (read, write), ClientSession(read, write) as found:
            await found.initialize()
            kept.append(Client(found, (await found.list_tools()).tools))
            await drive(kept[0])

    anyio.run(run)
    return kept[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository, a tiny model and a config that names it."""
    folder = tmp_path_factory.mktemp("agent")
    (folder / "repo").mkdir()
    for n in range(12):
        (folder / "repo" / f"m{n:02}.py").write_text(
            f'def job_{n}(a, b={n}):\n    """Does job {n} as told, and hands it on."""\n'
            f"    found = a * {n} + b\n    return found\n"
        )
    save_model(folder / "model", max_position_embeddings=4096)
    (folder / "forge.yaml").write_text(
        f"model: {folder / 'model'}\nmax_tokens: 2048\nrank: 4\nlayers: 0\ndistractors: 1\n"
        "questions: 2\nvalid_every: 4\nvalid_rows: 2\neval_rows: 4\nanswer_rows: 1\n"
        "condition_rows: 0\nquant: [f16]\nparity: false\nretention_rows: 0\nimportance_rows: 0\n"
        "jobs: 1\nsave_every: 2\n"
    )
    return folder


TRAIN = {"source": "repo", "steps": 40}


@pytest.fixture(scope="module")
def left(place: Path) -> Client:
    """A session whose client goes away while a training runs."""

    async def drive(client: Client) -> None:
        plan = await client.call("plan_training_start", source="repo", wait_seconds=0)
        assert plan["state"] == "running"
        while not (plan := await client.call("task_status", task="plan_training-1"))["log"]:
            assert plan["state"] == "running"
        group = plan["process_group"]
        os.killpg(group, 0)  # it is there
        assert "still running" in await client.refused("task_result", task=plan["task"])
        assert (await client.call("task_cancel", task=plan["task"]))["state"] == "cancelled"
        gone(group)
        assert "was cancelled" in await client.refused("task_result", task=plan["task"])

        asked = await client.call("train_start", **TRAIN)
        token = asked["confirmation"]["token"]
        task = await client.call("train_start", **TRAIN, confirmation=token)
        assert task["state"] == "running", "its name comes at once"
        metrics = place / ".forge" / "runs" / "repo" / "metrics.jsonl"
        while not metrics.exists() or metrics.read_text().count('"learning_rate"') < 3:
            task = await client.call("task_status", task=task["task"], wait_seconds=0.05)
            assert task["state"] == "running", task
        client.found["last"] = task
        client.found["asked"] = asked

    return session(place, drive, "--allow-write")


def test_what_runs_ends_when_the_client_goes(left: Client, place: Path) -> None:
    gone(left.found["last"]["process_group"])
    run = RunDir.load(place / ".forge" / "runs" / "repo")
    with run.locked():
        assert "data" in run.state["stages"]
    assert "train" not in run.state["stages"] and list((run.path / "checkpoints").iterdir())


def test_what_a_call_would_do_is_shown_first(left: Client) -> None:
    asked = left.found["asked"]["confirmation"]
    assert asked["would_run"].startswith("forge train --json --steps=40 /")
    assert asked["cost"] == "hours of the accelerator"
    (plan,) = asked["plan"]
    schema = left.tools["plan_training_start"].output_schema["properties"]["result"]  # type: ignore[index]
    jsonschema.validate({**plan, "notes": asked["notes"]}, schema)
    assert plan["peak_bytes"] > 0 and "would train" in " ".join(asked["notes"])


@pytest.fixture(scope="module")
def driven(place: Path, left: Client) -> Client:
    """The whole way, once; the training goes on where the client before left it."""

    async def drive(client: Client) -> None:
        mined = await client.done(await client.call("mine_start", path="repo", out="chunks.jsonl"))
        assert mined["records"] == 12
        run = await client.confirmed("train_start", **TRAIN)
        assert any("resuming after step" in note for note in run["notes"])
        assert run["path"] == ".forge/runs/repo" and run["metrics"]["train"]["steps"] == 40
        judged = await client.done(await client.call("evaluate_start", run=run["path"]))
        assert "answer_loss" in judged["metrics"]["eval"]["raft"]
        exported = await client.done(await client.call("export_start", run=run["path"]))
        assert [Path(file).name for file in exported["files"]] == ["repo-f16.gguf"]
        served = {"run": run["path"], "name": "tiny"}
        asked = await client.call("deploy_start", **served)
        token = asked["confirmation"]["token"]
        other = {**served, "name": "another"}
        said = await client.refused("deploy_start", **other, confirmation=token)
        assert "was given for other arguments" in said
        await client.done(await client.call("deploy_start", **served, confirmation=token))
        again = await client.refused("deploy_start", **served, confirmation=token)
        assert "used already" in again
        await client.call("list_versions", name="tiny")
        await client.call("rollback_start", name="tiny")

    with OllamaServer() as ollama:
        client = session(place, drive, "--allow-write", FORGE_HOST=ollama.url)
        assert len(ollama.models) == 2 and "tiny:latest" in ollama.models
    return client


def test_an_agent_mines_trains_judges_and_deploys(driven: Client, place: Path) -> None:
    run = RunDir.load(place / ".forge" / "runs" / "repo")
    assert run.state["metrics"]["deploy"]["name"] == "tiny"
    assert run.state["metrics"]["deploy"]["dry_run"] is False
    (version,) = driven.found["list_versions"]["items"]
    assert version["served"] and version["source"] == str(run.path)
    back = driven.found["rollback_start"]["confirmation"]
    assert back["would_run"] == "forge deploy --json --rollback --name=tiny"
    assert back["effects"] == "changes what is served" and back["plan"][0]["served"] is True


def test_the_tools_are_what_the_protocol_wants(driven: Client) -> None:
    for tool in driven.tools.values():
        for schema in (tool.input_schema, tool.output_schema):
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"  # type: ignore[index]
        assert tool.description and tool.annotations
    hints = {name: tool.annotations for name, tool in driven.tools.items()}
    assert hints["list_runs"].read_only_hint and not hints["train_start"].read_only_hint  # type: ignore[union-attr]
    assert hints["deploy_start"].destructive_hint and hints["mine_start"].idempotent_hint  # type: ignore[union-attr]


def test_without_leave_to_write_an_agent_only_reads(driven: Client, place: Path) -> None:
    run = ".forge/runs/repo"
    outside = place.parent / "elsewhere"
    outside.mkdir(exist_ok=True)
    (place / "link").symlink_to(outside)

    async def drive(client: Client) -> None:
        assert all(t.annotations.read_only_hint for t in client.tools.values()
                   if t.name != "task_cancel")  # type: ignore[union-attr]  # fmt: skip
        assert not {"train_start", "deploy_start", "mine_start"} & set(client.tools)
        said = await client.refused("train_start", source="repo")
        assert "this server only reads" in said and "--allow-write" in said
        for path in ("/", "..", "link", "link/x", "repo/../../x"):
            assert "leads out of" in await client.refused("show_run", run=path)
        assert "not a run directory" in await client.refused("show_run", run="repo")
        assert "'run' is a required property" in await client.refused("show_run")
        assert "recipe: '../x' does not match" in await client.refused("show_recipe", recipe="../x")
        await client.call("list_runs", folder=".")
        await client.call("show_run", run=run)
        await client.call("compare_runs", first=run, second=run)
        await client.call("guard_status", path="repo")
        await client.call("guard_history", path="repo", all=True)
        await client.call("doctor")
        await client.call("list_recipes")
        await client.call("show_recipe", recipe="demo")
        (resource,) = (await client.session.list_resources()).resources
        read = await client.session.read_resource(resource.uri)
        assert json.loads(read.contents[0].text)["name"] == "repo"  # type: ignore[union-attr]
        with pytest.raises(MCPError, match="no such run"):
            await client.session.read_resource("forge://runs/../repo")

    client = session(place, drive)
    (listed,) = client.found["list_runs"]["items"]
    assert listed["name"] == "repo" and listed["deployed"]["name"] == "tiny"
    (status,) = client.found["guard_status"]["items"]
    assert status["drift"]["symbols"] >= 12 and status["decision"]["triggers"]
    assert client.found["show_run"]["eval"]["raft"]["answer_loss"]["n"] >= 1
    assert all(one["difference"] == 0 for one in client.found["compare_runs"]["metrics"])


def gone(group: int) -> None:
    """Wait until no process of the group is left."""
    for _ in range(1200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process group {group} is still there")
