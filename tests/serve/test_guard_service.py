"""The guardian trains by a service: the rows go there, the adapters come back."""

from __future__ import annotations

from pathlib import Path

from serving import serving

from forge_cli.core.run_dir import RunDir
from forge_cli.serve.jobs import JobStore
from forge_cli.serve.jobs.command import begin_with
from forge_cli.serve.jobs.sources import Allowed
from forge_cli.serve.jobs.storage import open_storage
from guarding import Guarding
from tiny_train import save_model


def test_a_service_trains_for_the_guardian(tmp_path: Path) -> None:
    home, allowed = tmp_path / "home", tmp_path / "allowed"
    allowed.mkdir()
    model = save_model(allowed / "model", max_position_embeddings=8192)
    store = JobStore(open_storage(f"sqlite:///{home}/jobs.db"))
    begin = begin_with(home, Allowed([allowed], []), store)
    with serving(tmp_path, begin=begin) as service:
        guarding = Guarding(allowed, model)
        first = guarding.look(service=service.url)
        assert (first.outcome, first.mode) == ("deployed", "first"), first.error
        guarding.add("more", 5)
        second = guarding.look(service=service.url)
        assert (second.outcome, second.mode) == ("deployed", "incremental"), second.error
        jobs = service.http.get("/jobs").json()["jobs"]
        assert [job["state"] for job in jobs] == ["succeeded"] * 2
        run = RunDir.load(Path(second.run))
        assert run.state["stages"]["train"]["job"] == jobs[0]["id"]
        # What trained there is what an update trains here: from the adapters, at its own rate.
        options = jobs[0]["options"]
        assert options["adapters"] == first.run
        assert options["learning_rate"] == run.state["update"]["settings"]["learning_rate"]
        own = home / jobs[0]["id"] / "run" / "adapters" / "adapters.safetensors"
        assert own.read_bytes() == (run.path / "adapters/adapters.safetensors").read_bytes()

    (guarding.repository / "part1.py").unlink()
    guarding.add("extra", 5)
    gone = guarding.look(service=service.url)
    assert gone.outcome == "failed" and service.url in gone.error
    assert guarding.served == second.id
    assert guarding.guarded.load().cycle, "it goes on when the service is back"
