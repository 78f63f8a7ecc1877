"""Which of several processes this one is, as whoever started them says in the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forge_cli.core.errors import UsageError

# How Open MPI, MPICH and Slurm tell a process its number and how many there are.
_MPI = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)


@dataclass(frozen=True)
class Place:
    """The place of a process among those that train together.

    Attributes:
        rank: counted from 0; rank 0 writes the run. size: how many there are.
        backend: of mx.distributed: ring, jaccl or mpi.
        addresses: host and port of each rank (of the first alone with jaccl, none with mpi).
    """

    rank: int
    size: int
    backend: str
    addresses: tuple[tuple[str, int], ...] = ()


def find_place(environ: Mapping[str, str] | None = None) -> Place | None:
    """The place that mlx.launch, `--hosts` or mpirun gave this process; None: it is alone.

    Raises:
        UsageError: the variables do not fit together.
    """
    env = os.environ if environ is None else environ
    if "MLX_RANK" in env and "MLX_HOSTFILE" in env:
        return _ring(env["MLX_RANK"], env["MLX_HOSTFILE"])
    if "MLX_RANK" in env and "MLX_JACCL_COORDINATOR" in env:
        devices = _read(env.get("MLX_IBV_DEVICES", ""))
        rank = _number(env["MLX_RANK"], len(devices))
        return Place(rank, len(devices), "jaccl", (_address(env["MLX_JACCL_COORDINATOR"]),))
    for rank_name, size_name in _MPI[: 3 if "MLX_MPI_LIBNAME" in env else 2]:
        if rank_name in env and int(env.get(size_name, "1")) > 1:
            return Place(int(env[rank_name]), int(env[size_name]), "mpi")
    return None


def _ring(rank: str, file: str) -> Place | None:
    if not Path(file).exists() or not Path(file).read_text(encoding="utf-8").strip():
        return None  # mlx.launch -n 1 writes an empty file
    try:
        addresses = tuple(_address(entry[0]) for entry in _read(file))
    except (IndexError, TypeError):
        raise UsageError(
            f"MLX_HOSTFILE {file}: not a list of lists of addresses",
            'for two processes: [["10.0.0.1:32323"], ["10.0.0.2:32323"]]',
        ) from None
    number = _number(rank, len(addresses))
    return Place(number, len(addresses), "ring", addresses) if len(addresses) > 1 else None


def _read(file: str) -> list[list[str]]:
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(f"hosts file {file}: {error}", "start with mlx.launch") from None
    return found if isinstance(found, list) else []


def _number(rank: str, size: int) -> int:
    if not rank.isdigit() or int(rank) >= size:
        raise UsageError(
            f"MLX_RANK {rank}: the hosts file has ranks 0 to {size - 1}", "start with mlx.launch"
        )
    return int(rank)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"address {text!r}: not HOST:PORT", "start with mlx.launch")
    return host, int(port)
