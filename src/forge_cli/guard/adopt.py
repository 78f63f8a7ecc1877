"""A model that was deployed by hand, from which the guardian goes on."""

from __future__ import annotations

from pathlib import Path

from forge_cli import pipeline
from forge_cli.core.config import Settings
from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.run_dir import RunDir
from forge_cli.guard.state import Deployed, Guarded


def adopt(guarded: Guarded, s: Settings, reporter: Reporter) -> Deployed | None:
    """What `forge deploy` serves under the guarded name, if its run is of this repository.

    None where nothing was, or the run is gone: then the first model is trained.
    """
    from forge_cli.deploy.address import full_name, server_url
    from forge_cli.deploy.registry import Registry

    place = server_url(s.host), full_name(guarded.name)
    # What was rolled back since is not what is served.
    served = Registry(pipeline.registry_file()).served()
    last = next((one for one in served if (one.url, one.name) == place), None)
    if last is None:
        return None
    try:
        run = RunDir.load(Path(last.source))
    except ForgeError:
        reporter.note(f"{last.version}: was deployed from {last.source}, which is gone")
        return None
    if Path(str(run.state["source"])) != guarded.repository:
        return None
    if not (run.path / "data" / "chunks.jsonl").exists():
        return None
    reporter.note(f"goes on from {last.version}, which was deployed from {run.path}")
    return Deployed(
        run=str(run.path.resolve()),
        version=last.version,
        commit=str(run.state["stages"].get("mine", {}).get("commit", "")),
        time=last.time,
    )
