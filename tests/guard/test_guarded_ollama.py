"""A guarded model behind Ollama: versions, and the way back when the served one breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from guarding import Guarding
from ollama_server import OllamaServer
from tiny_train import save_model

SERVED = {"to": "ollama", "smoke_every": "1000h"}


def test_versions_and_the_way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_DATA", str(tmp_path / "data"))
    guarding = Guarding(tmp_path, save_model(tmp_path / "model", max_position_embeddings=8192))
    with OllamaServer() as server:
        guarding.settings["host"] = server.url
        first = guarding.look(deploy=SERVED)
        assert first.outcome == "deployed" and first.version.startswith("mine:2"), first.error
        guarding.add("more", 5)
        second = guarding.look(deploy=SERVED)
        assert (second.outcome, second.previous) == ("deployed", first.version), second.error
        served = {one: server.find(one)[1].digest for one in (first.version, second.version)}
        assert server.find("mine")[1].digest == served[second.version]

        # Its file is gone bad: the server answers, the model does not.
        server.runners.pop(served[second.version]).stop()
        server.blob(served[second.version]).write_bytes(b"GGUF, or what is left of it")
        back = guarding.look(deploy=SERVED | {"smoke_every": "1s"})
        assert (back.outcome, back.version) == ("rolled back", first.version)
        assert server.find("mine")[1].digest == served[first.version]
        state = guarding.guarded.load()
        assert state.deployed and state.deployed.run == first.run

    # No server is no word about the model.
    gone = guarding.look(deploy=SERVED | {"smoke_every": "1s"}, retrain_when={"drift": 0.9})
    assert gone.outcome == "nothing to do"
    assert any("was not asked" in text for text in guarding.told.warnings)

    # And nothing is trained that it could not take.
    guarding.add("most", 9)
    held = guarding.look(deploy=SERVED)
    assert held.outcome == "held" and not guarding.guarded.load().cycle
    assert held.decision and "no Ollama server" in str(held.decision.holds)
