"""`forge serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from forge_cli.cli import _service
from forge_cli.cli._options import Json, Quiet, Verbose, settings
from forge_cli.cli._output import Output


def serve(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any.")] = 8421,
    queue: _service.Queue = None,
    home: _service.Home = None,
    allow: _service.Allow = None,
    allow_git: _service.AllowGit = None,
    allow_execute: _service.AllowExecute = False,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with a token's hash; made if it is not there, and shown once."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, max=16, help="Worker processes.")] = 1,
    slots: _service.Slots = 2,
    keep_days: _service.KeepDays = 30.0,
    unload: _service.Unload = True,
    start_ollama: Annotated[
        bool, typer.Option("--start-ollama", help="Run ollama serve beside it, if none answers.")
    ] = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Take fine-tuning jobs over HTTP, and work on them.

    Example: forge serve --allow ~/code
    """
    _service.need_extra()
    models_url = settings({}).settings.host
    from forge_cli.serve import server, tokens
    from forge_cli.serve.jobs.storage import open_storage
    from forge_cli.serve.jobs.store import JobStore
    from forge_cli.serve.ollama_server import Ollama
    from forge_cli.serve.services import Services

    output = Output(json_lines=json_lines, quiet=quiet)
    may = _service.allowed(allow, allow_git, execute=allow_execute)
    listening = server.listen(host, port, with_token=token_file is not None)
    sha256 = ""
    if token_file:
        if not token_file.exists():
            # Shown even with -q: nobody can read it again.
            output.warn(f"the token, shown only now: {tokens.make_token(token_file)}")
        sha256 = tokens.read_hash(token_file)
    folder, url = _service.place(home, queue)
    found = Services(
        store=JobStore(open_storage(url)), home=folder, allowed=may, token_sha256=sha256,
        models_url=models_url,
    )  # fmt: skip
    told = ["--home", str(folder), "--slots", str(slots), "--keep-days", str(keep_days)]
    told += [part for path in may.folders for part in ("--allow", str(path))]
    told += [part for name in may.hosts for part in ("--allow-git", name)]
    told += (
        ["--no-unload"] * (not unload)
        + ["--allow-execute"] * allow_execute
        + ["--json"] * json_lines
        + ["--quiet"] * quiet
    )
    shown, bound = listening.getsockname()[:2]
    output.note(f"serves http://{f'[{shown}]' if ':' in shown else shown}:{bound}")
    if not may.folders and not may.hosts:
        output.warn("jobs may read nothing but uploaded files; see --allow and --allow-git")
    with Ollama(models_url) as ollama:
        if start_ollama:
            health = ollama.start()
            output.note(f"Ollama {health.version} at {models_url}, {health.models} models")
        with server.workers(workers, told, url):
            server.serve(found, listening)
    output.next("forge serve   (jobs that were under way go on)")
