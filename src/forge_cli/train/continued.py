"""Adapters to train: fresh ones, or those of a Forge run or of PEFT to go on from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.models.adapters import (
    AdapterConfig,
    AdapterFolder,
    attach,
    load_initial,
    residual_hash,
)
from forge_cli.models.backend import mx
from forge_cli.models.load import Loaded, make_ready
from forge_cli.models.peft import adapter_folder, is_peft, read_either
from forge_cli.models.targets import get_module, linear_layers
from forge_cli.train.initial import start_adapters


def put_adapters(
    loaded: Loaded,
    config: AdapterConfig,
    folder: Path,
    *,
    resumed: bool,
    adapters: Path | None,
    reporter: Reporter,
    **fresh: Any,
) -> tuple[AdapterConfig, dict[str, mx.array]]:
    """Put adapters on a dense model and quantise it, in place.

    Args:
        folder: of the run's own adapters; with `resumed` their A₀, B₀ are taken again.
        adapters: to go on from (None: fresh ones, see `start_adapters` for `fresh`).

    Returns:
        The config with the hash of the residual, and A₀, B₀.
    """
    if adapters:
        # What is given may have changed since the run began.
        source = folder if resumed else adapters
        config, initial = continue_adapters(loaded, config, source, reporter)
    else:
        config, initial = start_adapters(
            loaded.model, config, initial=load_initial(folder) if resumed else {},
            stored=loaded.stored_as(config.quantiser), reporter=reporter, **fresh,
        )  # fmt: skip
    make_ready(loaded, reporter)
    return replace(config, residual_sha256=residual_hash(loaded.model)), initial


def continue_adapters(
    loaded: Loaded, wanted: AdapterConfig, folder: Path, reporter: Reporter = SILENT
) -> tuple[AdapterConfig, dict[str, mx.array]]:
    """Put the adapters of `folder` on a dense model and quantise it, in place.

    Modules, ranks, scales and A₀, B₀ are the folder's, and so is the quantiser of a Forge
    run. PEFT knows no quantiser: there it is `wanted`'s.

    Returns:
        The config, and A₀, B₀ by `<module>.A` / `<module>.B` (empty where nothing was taken
        out of W).

    Raises:
        UsageError: an adapter of a layer that the model has not, or not in this size.
        ForgeError: the folder cannot be read.
    """
    found = read_either(folder)
    config = replace(found.config, model=loaded.name)
    if is_peft(adapter_folder(folder)):
        config = replace(config, **wanted.quantiser)
    _check_shapes(loaded, found, folder)
    stored = loaded.stored_as(config.quantiser)
    attach(loaded.model, config, found.arrays, found.initial, stored=stored)
    if config.residual_sha256 and residual_hash(loaded.model) != config.residual_sha256:
        reporter.warn(
            f"{folder}: the residual differs from the one it was trained on (another machine, "
            "MLX version or weights of the model): its answers start somewhat worse"
        )
    ranks = sorted({config.rank_of(name) for name in config.modules})
    reporter.note(
        f"adapters: {len(config.modules)} of {folder}, rank {', '.join(map(str, ranks))}, "
        f"{config.bits}-bit base; they go on from there"
    )
    return config, found.initial


def _check_shapes(loaded: Loaded, found: AdapterFolder, folder: Path) -> None:
    """A and B must fit their layers.

    Raises:
        UsageError: one does not.
    """
    known = set(linear_layers(loaded.model))
    hint = f"it was trained on {found.config.model or 'another model'}: give that as --model"
    for name in found.config.modules:
        if name not in known:
            raise UsageError(f"{folder}: {loaded.name} has no layer {name}", hint)
        out, into = get_module(loaded.model, name).weight.shape
        A, B = found.arrays[f"{name}.A"], found.arrays[f"{name}.B"]
        if A.shape[1] != into or B.shape[0] != out or A.shape[0] != B.shape[1]:
            raise UsageError(
                f"{folder}: {name} is for a layer {(B.shape[0], A.shape[1])}, "
                f"{loaded.name} has {(out, into)}",
                hint,
            )
