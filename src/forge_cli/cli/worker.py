"""`forge worker`."""

from __future__ import annotations

import signal
import time
from typing import Annotated

import typer

from forge_cli.cli import _service
from forge_cli.cli._options import Json, Quiet, Verbose, settings
from forge_cli.cli._output import Output


def worker(
    queue: _service.Queue = None,
    home: _service.Home = None,
    allow: _service.Allow = None,
    allow_git: _service.AllowGit = None,
    allow_execute: _service.AllowExecute = False,
    slots: _service.Slots = 2,
    keep_days: _service.KeepDays = 30.0,
    unload: _service.Unload = True,
    until_stdin_ends: Annotated[bool, typer.Option("--until-stdin-ends", hidden=True)] = False,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Work on the jobs of a queue until SIGTERM; jobs under way are given back, to be resumed.

    Example: forge worker --queue redis://mini.local/0 --allow ~/code
    """
    _service.need_extra()
    models_url = settings({}).settings.host
    from forge_cli.deploy.address import is_loopback
    from forge_cli.serve.jobs.command import begin_with
    from forge_cli.serve.jobs.storage import open_storage
    from forge_cli.serve.jobs.store import JobStore
    from forge_cli.serve.jobs.worker import Worker

    output = Output(json_lines=json_lines, quiet=quiet)
    found, url = _service.place(home, queue)
    may = _service.allowed(allow, allow_git, execute=allow_execute)
    store = JobStore(open_storage(url))
    begin = begin_with(found, may, store)
    working = Worker(store, found, begin, slots=slots, keep_days=keep_days, reporter=output)
    if unload and is_loopback(models_url):
        from forge_cli.serve.ollama_server import HandOver

        working.around = HandOver(models_url, output).around
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: working.stop())
    if until_stdin_ends:
        _service.stop_at_eof(working.stop)
    output.note(f"{working.name} waits for jobs")
    working.run(time.monotonic)
    output.next("forge jobs ls")
