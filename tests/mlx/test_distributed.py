"""Two real processes that train one model: as one would, and well when one of them is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from forge_cli.train.checkpoint import checkpoints, load
from forge_cli.train.distributed import deal

RANK = Path(__file__).parents[1] / "rank.py"
# Of Lost, as tests/rank.py gives it.
LOST = 3


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def start(out: Path, *options: str, size: int = 2, ranks: list[int] | None = None) -> list[Any]:
    """The processes of a run; those of `ranks` alone."""
    out.mkdir(exist_ok=True)
    hosts = out.parent / f"{out.name}-hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(size)]))
    found = []
    for rank in range(size) if ranks is None else ranks:
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        if size > 1:
            env |= {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)}
        args = [sys.executable, str(RANK), str(out), *options]
        found.append(
            subprocess.Popen(
                args, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    return found


def train(out: Path, *options: str, size: int = 2) -> list[tuple[int, str]]:
    """The exit code and the error of each rank."""
    started = start(out, *options, size=size)
    try:
        errors = [process.communicate(timeout=200)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [(p.returncode, e) for p, e in zip(started, errors, strict=True)]


def computed(out: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what was measured."""
    measured = {"seconds", "valid_seconds", "peak_bytes", "step_bytes"}
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in measured} for row in rows]


def adapters(out: Path) -> dict[str, np.ndarray]:
    return load_file(str(out / "adapters.safetensors"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by two processes that nobody disturbs."""
    out = tmp_path_factory.mktemp("two") / "run"
    assert [code for code, _ in train(out)] == [0, 0]
    return out


def must_be_the_same(one: Path, other: Path) -> None:
    """The same bits: losses, adapters, optimiser."""
    assert computed(one) == computed(other)
    name = "adapters.safetensors"
    assert (one / name).read_bytes() == (other / name).read_bytes()
    last = [checkpoints(out / "checkpoints")[-1] for out in (one, other)]
    assert last[0].name == last[1].name
    assert last[0].read_bytes() == last[1].read_bytes()


def test_batches_are_dealt_by_their_tokens() -> None:
    assert deal([10, 90, 30, 40, 20], 2) == [[0, 1], [2, 3, 4]]
    assert deal([5, 5, 5], 2) == [[0, 2], [1]]
    assert deal([7], 3) == [[0], [], []]
    assert deal([3, 9, 4], 1) == [[0, 1, 2]], "one process keeps the order it has"


def test_two_processes_train_as_one_does(tmp_path: Path, two: Path) -> None:
    one = tmp_path / "one"
    assert train(one, size=1)[0][0] == 0
    assert len(computed(two)) == len(computed(one)) == 7
    for ours, theirs in zip(computed(two), computed(one), strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            exact = key in ("step", "tokens", "supervised_tokens", "learning_rate")
            assert value == theirs[key] if exact else value == pytest.approx(theirs[key], abs=1e-5)
    ours, theirs = adapters(two), adapters(one)
    start = load_file(str(checkpoints(one / "checkpoints")[0]))
    for name, value in theirs.items():
        moved = np.abs(value - start[f"adapter/{name}"]).max()
        assert np.abs(ours[name] - value).max() < 1e-3 * moved


def test_three_processes_do_too_and_again_the_same_bits(tmp_path: Path, two: Path) -> None:
    outs = [tmp_path / "first", tmp_path / "second"]
    for out in outs:
        assert [code for code, _ in train(out, "steps=4", size=3)] == [0, 0, 0]
    must_be_the_same(*outs)
    loss = next(row["loss"] for row in computed(two) if "loss" in row)
    ours = next(row["loss"] for row in computed(outs[0]) if "loss" in row)
    assert ours == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize(
    ("fault", "codes", "says", "kept"),
    [
        ("die=1:3", [LOST, -signal.SIGKILL], "rank 1 is gone", 2),
        ("die=0:3", [-signal.SIGKILL, LOST], "rank 0 is gone", 0),
        ("stop=1:5", [LOST, 130], "rank 1: interrupted", 4),
        ("stop=0:5", [130, LOST], "rank 0: interrupted", 4),
        ("fault=1:2", [LOST, 1], "rank 1: the loss of row 7 is not a number", 1),
        ("fault=0:6", [1, LOST], "rank 0: the loss of row 7 is not a number", 3),
    ],
)
def test_a_lost_rank_ends_in_an_error_and_a_run_that_goes_on_to_the_same_bytes(
    tmp_path: Path, two: Path, fault: str, codes: list[int], says: str, kept: int
) -> None:
    out = tmp_path / "run"
    done = train(out, fault)
    assert [code for code, _ in done] == codes
    assert f"error: {says}" in done[codes.index(LOST)][1]
    # Rank 0 saves on its way out where it is the other that is lost.
    assert checkpoints(out / "checkpoints")[-1].stem == f"step-{kept:08d}"
    assert [code for code, _ in train(out)] == [0, 0]
    must_be_the_same(out, two)


def test_a_run_goes_on_with_more_or_fewer_processes(tmp_path: Path, two: Path) -> None:
    """An interrupted single process keeps a part of a step: two must not count it twice."""
    out = tmp_path / "run"
    assert train(out, "part=2", size=1)[0][0] == 130
    assert load(checkpoints(out / "checkpoints")[-1]).partial.done == 2
    assert [code for code, _ in train(out, "stop=0:3")] == [130, LOST]
    assert train(out, size=1)[0][0] == 0
    ours, theirs = ([row for row in computed(run) if "loss" in row] for run in (out, two))
    assert [row["tokens"] for row in ours] == [row["tokens"] for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)


def test_a_rank_that_hangs_is_lost_too(tmp_path: Path) -> None:
    processes = start(tmp_path / "run", "hang=1:2", "missed=3")
    try:
        _, error = processes[0].communicate(timeout=200)
    finally:
        processes[1].kill()
    assert processes[0].returncode == LOST
    assert "error: rank 1 has not answered for 3 seconds" in error
    processes[1].communicate()


def test_a_rank_that_never_comes_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    for rank, says in ((0, "rank 1 did not come within 1 s"), (1, "did not answer within 1 s")):
        (process,) = start(tmp_path / "run", "together=1", ranks=[rank])
        started = time.monotonic()
        _, error = process.communicate(timeout=100)
        assert process.returncode == 1
        assert says in error
        assert time.monotonic() - started < 60


def test_a_rank_that_hangs_before_the_ring_stands_is_not_waited_for_for_ever(
    tmp_path: Path,
) -> None:
    """MLX itself would wait, deaf to all."""
    processes = start(tmp_path / "run", "hang=1:0", "together=3")
    try:
        _, error = processes[0].communicate(timeout=100)
    finally:
        processes[1].kill()
    assert processes[0].returncode == -signal.SIGKILL
    assert "error: rank 0: the connections were not there within 3 seconds" in error
    processes[1].communicate()


def test_the_smallest_limit_on_a_pass_is_that_of_all(tmp_path: Path) -> None:
    done = start(tmp_path / "run", "steps=2", "limit=1:50")
    told = [process.communicate(timeout=200)[0] for process in done]
    assert all("2 steps, 50 limit" in text for text in told)
