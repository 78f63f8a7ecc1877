"""What all ranks must have alike: settings, rows, where training starts, how far it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from forge_cli import __version__
from forge_cli.core.errors import UsageError
from forge_cli.core.events import Reporter
from forge_cli.models.adapters import AdapterConfig, adapter_arrays, residual_hash, save_adapters
from forge_cli.models.load import Loaded, fingerprint
from forge_cli.models.resolve import resolve
from forge_cli.train import checkpoint
from forge_cli.train.callbacks import Callback, Memory
from forge_cli.train.continued import continue_adapters
from forge_cli.train.distributed.world import World

# Arguments that each rank may have for itself.
_OWN = {
    "examples", "out", "cache", "callbacks", "track", "reporter", "world", "memory_limit",
    "save_every", "keep_last",
}  # fmt: skip
Start = tuple[AdapterConfig, dict[str, Any]]


def must_agree(
    world: World,
    arguments: Mapping[str, Any],
    reporter: Reporter,
) -> None:
    """Refuse ranks that would not train the same: each difference is named.

    Args:
        arguments: of `train.run`.

    Raises:
        UsageError: another version of Forge or MLX, other settings, rows or model files.
    """
    if world.size == 1:
        return
    rows = hashlib.sha256()
    for example in arguments["examples"]:
        rows.update(example.model_dump_json().encode())
    settings = {k: v for k, v in arguments.items() if k not in _OWN and not callable(v)}
    own = json.loads(json.dumps({
        "forge": __version__,
        "mlx": version("mlx"),
        "rows": rows.hexdigest()[:12],
        "model files": fingerprint(resolve(settings["model"], reporter=reporter)),
        **settings,
    }, default=_plain))  # fmt: skip
    found = world.gather(own)
    for rank, theirs in enumerate(found):
        for key in own:
            if theirs.get(key) != found[0].get(key):
                raise UsageError(
                    f"rank {rank} has other {key}: {_short(theirs.get(key))}, rank 0 has "
                    f"{_short(found[0].get(key))}",
                    "all machines need the same Forge, model and settings (also in forge.yaml and "
                    "FORGE_* variables)",
                )


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _short(value: Any) -> str:
    return str(value) if len(str(value)) < 60 else f"{str(value)[:57]}..."


def batches_a_step(world: World, accumulate: int, reporter: Reporter) -> int:
    """`accumulate`, but at least one for each rank: the step is then a larger one."""
    if accumulate < world.size:
        reporter.note(f"accumulate {accumulate}: {world.size} batches a step, one for each process")
    return max(accumulate, world.size)


def own_callbacks(world: World, callbacks: Sequence[Callback]) -> list[Callback]:
    """Those that a rank calls: all on rank 0, what guards the memory on the others."""
    return [c for c in callbacks if world.rank == 0 or isinstance(c, Memory)]


def share_run(world: World, out: Path, reporter: Reporter) -> None:
    """Give all ranks what rank 0's run directory has to go on from."""
    if world.size == 1:
        return
    names = []
    if world.rank == 0:
        checkpoint.sweep(out)
        newest = checkpoint.newest(out / "checkpoints", reporter)
        kept = [newest, out / "reference.safetensors"]
        names = [str(file.relative_to(out)) for file in kept if file and file.exists()]
    for name in world.gather(names)[0]:
        data = world.broadcast((out / name).read_bytes() if world.rank == 0 else b"")
        _keep(world, out / name, data)


def _keep(world: World, file: Path, data: bytes) -> None:
    if world.rank:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def start_together(
    world: World, loaded: Loaded, out: Path, reporter: Reporter, put: Callable[[], Start]
) -> Start:
    """Put the same adapters on each rank's model: rank 0 computes them, the others get them.

    Two machines round an SVD differently, and each rank's residual must be W − s·B₀·A₀ of the
    same A₀, B₀.

    Args:
        put: puts them on the model; called on rank 0.

    Returns:
        The config, and A₀, B₀.
    """
    if world.rank == 0:
        config, initial = put()
        config = replace(config, residual_sha256=residual_hash(loaded.model))
        if world.size > 1:
            _send_adapters(world, config, adapter_arrays(loaded.model), initial)
        return config, initial
    folder = out / "adapters"
    for name in world.gather(None)[0]:
        _keep(world, folder / name, world.broadcast(b""))
    config = AdapterConfig(**json.loads((folder / "config.json").read_text()))
    return continue_adapters(loaded, config, folder, reporter)


def _send_adapters(
    world: World, config: AdapterConfig, arrays: dict[str, Any], initial: dict[str, Any]
) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as name:
        save_adapters(Path(name), config, arrays, initial)
        files = sorted(Path(name).iterdir())
        world.gather([file.name for file in files])
        for file in files:
            world.broadcast(file.read_bytes())
