"""Choose the layers, compute where their adapters start, and put them on the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.models.adapters import AdapterConfig, attach_layer, finish, lora_scale
from forge_cli.models.backend import mx, nn
from forge_cli.models.quantise import quantisable, round_trip
from forge_cli.models.targets import (
    get_module,
    linear_layers,
    matches,
    ranks_of,
    target_modules,
)
from forge_cli.train.inits import INITS, Start
from forge_cli.train.inits.cache import StartCache
from forge_cli.train.inits.loftq import loftq_start
from forge_cli.train.inits.lora import lora_start
from forge_cli.train.inits.pissa import pissa_start, qpissa_start


@dataclass(frozen=True)
class StartSettings:
    """How the starts are computed.

    Attributes:
        iterations: power iterations of the fast SVD, or "exact".
        alternations: T of QPiSSA and LoftQ.
        cache: folder that keeps what was computed; None: none.
    """

    seed: int = 0
    iterations: int | str = 4
    alternations: int = 5
    cache: Path | None = None


def start_adapters(
    model: nn.Module,
    config: AdapterConfig,
    *,
    targets: Sequence[str],
    layers: int | str,
    seed: int | None = None,
    settings: StartSettings | None = None,
    rank_pattern: Mapping[str, int] = MappingProxyType({}),
    initial: Mapping[str, mx.array] = MappingProxyType({}),
    stored: Mapping[str, nn.Module] = MappingProxyType({}),
    reporter: Reporter = SILENT,
) -> tuple[AdapterConfig, dict[str, mx.array]]:
    """Attach fresh adapters to a dense model and quantise it, in place.

    Args:
        targets, layers, rank_pattern: see `models.targets`.
        initial: A₀, B₀ of the run that is resumed: another number of threads rounds an SVD
            differently, and the residual must stay the one that was trained.
        stored: layers of a checkpoint that is quantised already (see `attach`).

    Returns:
        The config with the modules chosen and their ranks, and A₀, B₀ by `<module>.A` /
        `<module>.B` (empty where nothing was taken out of W).

    Raises:
        UsageError: no layer matches, a rank is larger than a layer, or the init does not go
            with the other settings.
    """
    settings = settings or StartSettings()
    seed = settings.seed if seed is None else seed
    config = _checked(config, settings)
    names = target_modules(model, targets, layers)
    for target in targets:
        if not any(matches(target, name) for name in linear_layers(model)):
            reporter.warn(f"targets {target}: this model has no such layer")
    config = _with_ranks(model, replace(config, modules=names), rank_pattern)
    taken: dict[str, mx.array] = {}
    cache = StartCache(settings.cache)
    with reporter.task(f"{config.init} init", len(names)) as task:
        for index, name in enumerate(names):
            if f"{name}.A" in initial and len(initial[f"{name}.A"]) == config.rank_of(name):
                # What trains comes from the checkpoint; only the shapes of A and B count here.
                A0, B0 = initial[f"{name}.A"], initial[f"{name}.B"]
                start = Start(A0, B0, A0, B0)
            else:
                own = replace(settings, seed=seed + index)
                start = _start(model, name, config, own, name in stored, cache)
            mx.eval(start.A, start.B)
            out = None
            if start.A0 is not None and start.B0 is not None:
                out = start.A0, start.B0
                taken |= {f"{name}.A": start.A0, f"{name}.B": start.B0}
            attach_layer(model, config, name, (start.A, start.B), out, stored=stored)
            task.advance()
    if cache.hits:
        reporter.note(f"{config.init} init: {cache.hits} of {len(names)} layers from the cache")
    cache.trim()
    finish(model, config, {}, stored=stored)
    return config, taken


def _checked(config: AdapterConfig, settings: StartSettings) -> AdapterConfig:
    if config.init not in INITS:
        raise UsageError(
            f"init {config.init}: unknown",
            f"known: {', '.join(INITS)}",
        )
    if config.init == "loftq" and config.bits == 16:
        raise UsageError(
            "init loftq: starts from what quantisation loses, and bits 16 loses nothing",
            "choose bits up to 8, or init lora",
        )
    if config.init == "loftq" and settings.alternations < 1:
        raise UsageError("init loftq: needs alternations of 1 or more", "its paper has 1 and 5")
    if config.init == "dora":
        return replace(config, init="lora", dora=True)
    return config


def _with_ranks(
    model: nn.Module, config: AdapterConfig, pattern: Mapping[str, int]
) -> AdapterConfig:
    """The ranks and scales of modules that a pattern gives another rank than the default.

    Their alpha is the default's where it was chosen, and their own rank where alpha = rank.
    """
    ranks = ranks_of(config.modules, config.rank, pattern)
    for name, rank in ranks.items():
        shape = get_module(model, name).weight.shape
        if rank > min(shape):
            raise UsageError(
                f"rank {rank}: larger than {name} {tuple(shape)}",
                f"choose a rank up to {min(shape)}, or give this layer its own in rank_pattern",
            )
    own = {name: rank for name, rank in ranks.items() if rank != config.rank}
    scales = {
        name: lora_scale(
            float(rank) if config.alpha == config.rank else config.alpha, rank, config.rslora
        )
        for name, rank in own.items()
    }
    return replace(config, ranks=own, scales=scales)


def _start(
    model: nn.Module,
    name: str,
    config: AdapterConfig,
    settings: StartSettings,
    stored: bool,
    cache: StartCache,
) -> Start:
    """The start of one layer: from the cache, or by the method of the config."""
    layer = get_module(model, name)
    weight = layer.weight
    packs = config.bits != 16 and quantisable(layer, config.group_size)
    how: dict[str, Any] = {
        "rank": config.rank_of(name),
        "scale": config.scale_of(name),
        "iterations": None if settings.iterations == "exact" else settings.iterations,
        "seed": settings.seed,
    }
    # What the quantiser leaves as it is has nothing to alternate with.
    method = config.init
    if method == "qpissa" and not packs:
        method = "pissa"
    if method == "lora" or (method == "loftq" and (stored or not packs)):
        return lora_start(weight, rank=how["rank"], seed=settings.seed)
    if method == "pissa":
        compute: Callable[[], Start] = lambda: pissa_start(weight, **how)  # noqa: E731
        return cache.get(weight, compute, method=method, **how)
    against = {**config.quantiser, "alternations": settings.alternations}
    alternate = {"qpissa": qpissa_start, "loftq": loftq_start}[method]

    def rounds() -> Start:
        return alternate(
            weight,
            quantise=lambda W: round_trip(W, **config.quantiser),
            alternations=settings.alternations,
            **how,
        )

    return cache.get(weight, rounds, method=method, **against, **how)
