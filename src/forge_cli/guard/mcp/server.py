"""The MCP server over stdin and stdout, with the official SDK."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import mcp_types as types
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError

from forge_cli import __version__
from forge_cli.core.errors import ForgeError
from forge_cli.core.run_dir import RunDir
from forge_cli.guard.mcp.calls import Calls
from forge_cli.guard.mcp.roots import Roots
from forge_cli.guard.skills import load_skills
from forge_cli.runs import FOLDER, find_runs, summary

Context = ServerRequestContext[Any]

INSTRUCTIONS = (
    "Forge fine-tunes a local model on a private repository, judges it on held-out files and "
    "serves it. Start with list_runs and doctor. Plan before you train; report verdicts as they "
    "are, with their intervals. Tools whose name ends in _start return a task: follow it with "
    "task_status. Before train, deploy and rollback show the user what the first call foresees, "
    "and ask. Paths are relative to the first root: {roots}. {writes}"
)
_READS = "This server only reads; with --allow-write it can train and deploy too."


def serve(folders: list[Path], *, allow_write: bool) -> None:
    """Serve until the client is gone; then every command that runs is interrupted."""
    roots = Roots(folders)
    calls = Calls(load_skills(), roots, allow_write=allow_write)
    # The processes between end the commands when this one is gone, however it goes.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(130))
    anyio.run(_serve, calls, allow_write)


async def _serve(calls: Calls, allow_write: bool) -> None:
    server = make_server(calls, allow_write=allow_write)
    try:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
    finally:
        calls.tasks.leave()


def make_server(calls: Calls, *, allow_write: bool) -> Server[Any]:
    """The server with its handlers."""

    async def list_tools(_: Context, __: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=calls.tools)

    async def call_tool(
        context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        async def report(done: float, total: float | None, words: str) -> None:
            await context.session.report_progress(done, total, words)

        try:
            found = await calls.call(params.name, dict(params.arguments or {}), report)
        except ForgeError as error:
            return _refused(error)
        except Exception as error:  # a fault of Forge's own is no reason to end the session
            return _refused(
                ForgeError(f"{type(error).__name__}: {error}", "this is a fault of Forge itself")
            )
        text = json.dumps(found, ensure_ascii=False)
        return types.CallToolResult(
            content=[types.TextContent(text=text)], structured_content=found
        )

    async def list_resources(_: Context, __: Any) -> types.ListResourcesResult:
        return types.ListResourcesResult(
            resources=[
                types.Resource(
                    uri=uri,
                    name=uri.removeprefix("forge://"),
                    title=f"Run {run.path.name}",
                    description="What it was made from, what was measured, and the verdict.",
                    mime_type="application/json",
                )
                for uri, run in _runs(calls.roots).items()
            ]
        )

    async def read_resource(
        _: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        run = _runs(calls.roots).get(params.uri)
        if run is None:
            raise MCPError(types.INVALID_PARAMS, f"{params.uri}: no such run; see resources/list")
        text = json.dumps(summary(run), indent=2, ensure_ascii=False)
        contents = types.TextResourceContents(
            uri=params.uri, mime_type="application/json", text=text
        )
        return types.ReadResourceResult(contents=[contents])

    roots = ", ".join(map(str, calls.roots.folders))
    return Server(
        "forge",
        version=__version__,
        title="Forge",
        instructions=INSTRUCTIONS.format(roots=roots, writes="" if allow_write else _READS),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_read_resource=read_resource,
    )


def _refused(error: ForgeError) -> types.CallToolResult:
    text = f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else "")
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)


def _runs(roots: Roots) -> dict[str, RunDir]:
    """URI → run, of every root; of two with one name the first root's."""
    found: dict[str, RunDir] = {}
    for folder in roots.folders:
        if (folder / FOLDER).is_dir():
            for run in find_runs(folder / FOLDER):
                found.setdefault(f"forge://runs/{quote(run.path.name)}", run)
    return found
