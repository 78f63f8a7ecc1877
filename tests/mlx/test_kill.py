"""A process that is killed with SIGKILL anywhere: the same command ends in the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forge_cli.train.checkpoint import checkpoints
from tiny_train import save_model

VICTIM = Path(__file__).parents[1] / "victim.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A run that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train(model, out) == 0
    return out


def train(model: Path, out: Path, moment: str = "") -> int:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    args = [sys.executable, str(VICTIM), str(model), str(out), *([moment] if moment else [])]
    done = subprocess.run(args, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def computed(out: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what was measured."""
    measured = {"seconds", "valid_seconds", "peak_bytes", "step_bytes"}
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in measured} for row in rows]


# A run changes about 180 files; the same run is killed again and again on its way to the end.
MOMENTS = [f"ops:{n}" for n in sorted(random.Random(4).sample(range(1, 60), 5))]


@pytest.mark.parametrize("moments", [[*MOMENTS, "step:2", "step:1"]], ids=["one run, seven kills"])
def test_killed_again_and_again_it_ends_in_the_same_bytes(
    tmp_path: Path, model: Path, whole: Path, moments: list[str]
) -> None:
    out, died = tmp_path / "run", 0
    for moment in moments:
        died += train(model, out, moment) != 0
    assert died >= 5
    assert train(model, out) == 0
    for name in ("adapters.safetensors", "initial.safetensors", "config.json"):
        assert (out / "adapters" / name).read_bytes() == (whole / "adapters" / name).read_bytes()
    ours, theirs = (checkpoints(run / "checkpoints") for run in (out, whole))
    assert [file.name for file in ours] == [file.name for file in theirs]
    assert ours[-1].read_bytes() == theirs[-1].read_bytes()
    assert computed(out) == computed(whole)
    assert not [file for file in out.rglob(".*") if file.is_file()], "nothing half-written is left"
