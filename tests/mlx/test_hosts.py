"""`forge train` by several processes: --hosts, mlx.launch's environment, ranks that disagree."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from forge_cli.core.errors import UsageError
from forge_cli.core.jsonl import write_records
from forge_cli.core.ranks import Place, find_place
from forge_cli.pipeline.hosts import find_addresses, remote_script
from tiny_train import examples, save_model

TRAIN = [sys.executable, "-m", "forge_cli", "train", "examples.jsonl", "--model", "model"]
TRAIN += ["--steps", "2", "--rank", "4", "--run", "run"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tiny model and examples."""
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model")
    write_records(examples(), tmp_path / "examples.jsonl")
    return tmp_path


def test_two_hosts_train_and_rank_0_alone_writes(folder: Path) -> None:
    done = subprocess.run(
        [*TRAIN, "--hosts", "localhost,localhost", "--json"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = [line for line in done.stdout.splitlines() if json.loads(line)["record"] == "run"]
    assert json.loads(record)["metrics"]["train"]["steps"] == 2
    notes = [json.loads(line)["note"] for line in done.stderr.splitlines()]
    assert notes[0] == "2 processes train together (ring)"
    assert "accumulate 1: 2 batches a step, one for each process" in notes
    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]


def test_ranks_with_other_settings_are_refused_in_one_line(folder: Path) -> None:
    hosts = folder / "hosts.json"
    hosts.write_text(json.dumps([[address] for address in find_addresses(["localhost"] * 2)]))
    env = os.environ | {"MLX_HOSTFILE": str(hosts)}
    own: list[dict[str, str]] = [{"MLX_RANK": "0"}, {"MLX_RANK": "1", "FORGE_BETA": "0.7"}]
    ranks = [
        subprocess.Popen(TRAIN, cwd=folder, env=env | more, stderr=subprocess.PIPE, text=True)
        for more in own
    ]
    said = [rank.communicate(timeout=200)[1].splitlines() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2], said
    assert [line for line in said[0] if line.startswith("error")] == [
        "error: rank 1 has other beta: 0.7, rank 0 has 0.1"
    ]
    assert not said[1], "rank 0 tells it, once"


@pytest.mark.parametrize(
    ("hosts", "says"),
    [
        (["localhost"], "two or more names"),
        (["localhost", ""], "two or more names"),
        (["localhost", "no-such-host.invalid"], "hosts: no-such-host.invalid: "),
        (["192.0.2.7", "localhost"], "comes first and is not this machine"),
        (["localhost", "192.0.2.7"], "192.0.2.7 cannot reach localhost (127.0.0.1)"),
    ],
)
def test_hosts_that_cannot_train_together_are_refused(hosts: list[str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_addresses(hosts)
    assert says in caught.value.message
    assert caught.value.hint


def test_a_host_named_twice_gets_two_ports() -> None:
    first, second = find_addresses(["localhost", "127.0.0.1"])
    assert first.startswith("127.0.0.1:") and second.startswith("127.0.0.1:")
    assert first != second
    with socket.create_server(("127.0.0.1", int(second.partition(":")[2]))):
        pass


def test_a_shell_on_another_machine_runs_the_rank_in_the_same_folder(tmp_path: Path) -> None:
    code = (
        "import os, sys; print(os.getcwd(), os.environ['MLX_RANK'], sys.argv[1:], "
        "open(os.environ['MLX_HOSTFILE']).read()); sys.exit(7)"
    )
    ring = '[["10.0.0.1:1"], ["10.0.0.2:2"]]'
    script = remote_script(1, tmp_path, [sys.executable, "-c", code, "a b", "$HOME"], ring)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == f"{tmp_path} 1 ['a b', '$HOME'] {ring}\n"
    assert done.returncode == 7


def test_the_place_is_read_from_what_the_launchers_set(tmp_path: Path) -> None:
    hosts, devices = tmp_path / "hosts.json", tmp_path / "devices.json"
    hosts.write_text('[["10.0.0.1:5", "10.0.1.1:6"], ["10.0.0.2:7"]]')
    devices.write_text('[[null, "rdma_en2"], ["rdma_en2", null]]')
    ring = {"MLX_RANK": "1", "MLX_HOSTFILE": str(hosts)}
    assert find_place(ring) == Place(1, 2, "ring", (("10.0.0.1", 5), ("10.0.0.2", 7)))
    jaccl = {"MLX_JACCL_COORDINATOR": "10.0.0.1:9", "MLX_IBV_DEVICES": str(devices)}
    assert find_place({"MLX_RANK": "0"} | jaccl) == Place(0, 2, "jaccl", (("10.0.0.1", 9),))
    mpi = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"}
    assert find_place(mpi) == Place(2, 4, "mpi")
    assert find_place({}) is None
    assert find_place({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}) is None
    hosts.write_text("")  # mlx.launch -n 1
    assert find_place(ring) is None


@pytest.mark.parametrize(
    ("rank", "text", "says"),
    [
        ("2", '[["a:1"], ["b:2"]]', "MLX_RANK 2: the hosts file has ranks 0 to 1"),
        ("0", '[["a"], ["b:2"]]', "address 'a': not HOST:PORT"),
        ("0", "[[], []]", "not a list of lists"),
        ("0", "{", "hosts file"),
    ],
)
def test_a_broken_place_is_a_usage_error(tmp_path: Path, rank: str, text: str, says: str) -> None:
    file = tmp_path / "hosts.json"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        find_place({"MLX_RANK": rank, "MLX_HOSTFILE": str(file)})
    assert says in caught.value.message
