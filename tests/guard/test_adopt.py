"""What was deployed by hand is taken over: what is served, not what was served once."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_cli import pipeline
from forge_cli.core.config import Settings
from forge_cli.core.events import SILENT
from forge_cli.core.run_dir import RunDir
from forge_cli.deploy.address import server_url
from forge_cli.deploy.registry import Registry
from forge_cli.guard.adopt import adopt
from forge_cli.guard.state import Guarded


def test_what_is_served_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_DATA", str(tmp_path / "data"))
    guarded, settings = Guarded(tmp_path, "mine"), Settings()
    assert adopt(guarded, settings, SILENT) is None
    registry, url = Registry(pipeline.registry_file()), server_url(settings.host)
    for name in ("one", "two"):
        run = RunDir.open(tmp_path / name, {}, source=str(tmp_path))
        run.file("data", "chunks.jsonl").touch()
        registry.add("deployed", url, "mine:latest", f"mine:{name}", source=str(run.path))
    found = adopt(guarded, settings, SILENT)
    assert found and (found.version, found.run) == ("mine:two", str(tmp_path / "two"))
    registry.add("rolled back", url, "mine:latest", "mine:one", previous="mine:two")
    found = adopt(guarded, settings, SILENT)
    assert found and (found.version, found.run) == ("mine:one", str(tmp_path / "one"))
