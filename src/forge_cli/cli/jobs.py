"""`forge jobs`: look at a server's jobs and steer them."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forge_cli.cli._options import Json, Quiet, Verbose
from forge_cli.cli._output import Output

if TYPE_CHECKING:
    from forge_cli.serve.client import Client

app = typer.Typer(no_args_is_help=True, help="Look at the jobs of a server and steer them.")

Url = Annotated[
    str | None,
    typer.Option(help="The server (default: FORGE_URL, else http://127.0.0.1:8421)."),
]
JobId = Annotated[str, typer.Argument(help="Such as ftjob-000001.")]


def _client(url: str | None) -> Client:
    from forge_cli.serve.client import URL, Client

    return Client(url or os.environ.get("FORGE_URL") or URL)


@app.command("ls")
def ls(
    state: Annotated[str, typer.Option(help="Only those, such as running.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 50,
    url: Url = None,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the newest jobs: id, state, step, source; with --json one record a line.

    Example: forge jobs ls --state running
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    found = 0
    for job in _client(url).jobs(state, limit):
        found += 1
        print(json.dumps(job) if json_lines else "\t".join(_row(job)))
    output.next("forge jobs show JOB" if found else "curl -d … URL/fine-tune starts one")


def _row(job: dict[str, Any]) -> list[str]:
    progress = job["progress"]
    at = f"{progress['stage']} {progress['done']}/{progress['total']}" if progress["stage"] else ""
    return [job["id"], job["state"], job["created"][:19], at, job["source"]]


@app.command("show")
def show(
    job_id: JobId,
    url: Url = None,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show a job with all its fields, as JSON.

    Example: forge jobs show ftjob-000001
    """
    job = _client(url).json("GET", f"/jobs/{job_id}")
    print(json.dumps(job, indent=None if json_lines else 2, ensure_ascii=False))
    Output(json_lines=json_lines, quiet=quiet).next(f"forge jobs logs {job_id}")


@app.command("logs")
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the job is over.")] = False,
    url: Url = None,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Print a job's log; exits 1 if a job that was followed did not succeed.

    Example: forge jobs logs ftjob-000001 --follow
    """
    client = _client(url)
    state = ""
    if not follow:
        for text in client.text(f"/jobs/{job_id}/logs"):
            sys.stdout.write(text)
    else:
        for kind, data in client.events(job_id):
            if kind == "log":
                sys.stdout.write(data["text"])
                sys.stdout.flush()
            state = data["state"] if kind == "job" else state
            if state in ("succeeded", "failed", "cancelled") or kind == "removed":
                break
    Output(json_lines=json_lines, quiet=quiet).next(f"forge jobs show {job_id}")
    if state in ("failed", "cancelled"):
        raise typer.Exit(1)


def _steer(name: str, help_: str, then: str) -> None:
    def steer(
        job_id: JobId,
        url: Url = None,
        json_lines: Json = False,
        quiet: Quiet = False,
        verbose: Verbose = False,
    ) -> None:
        job = _client(url).json("POST", f"/jobs/{job_id}/{name}")
        print(json.dumps(job) if json_lines else "\t".join(_row(job)))
        Output(json_lines=json_lines, quiet=quiet).next(f"forge jobs {then} {job_id}")

    app.command(name, help=f"{help_}\n\nExample: forge jobs {name} ftjob-000001")(steer)


_steer("cancel", "Stop a job for good; what it wrote stays.", "retry")
_steer("pause", "Stop a job for now, after a checkpoint.", "resume")
_steer("resume", "Queue a paused job again; it goes on where it was.", "logs -f")
_steer("retry", "Queue a failed or cancelled job again.", "logs -f")


@app.command("rm")
def rm(
    job_id: JobId,
    url: Url = None,
    json_lines: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Remove a job that is over, with its folder.

    Example: forge jobs rm ftjob-000001
    """
    _client(url).json("DELETE", f"/jobs/{job_id}")
    Output(json_lines=json_lines, quiet=quiet).next("forge jobs ls")
