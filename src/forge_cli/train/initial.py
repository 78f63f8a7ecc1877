"""Choose the layers, compute where their adapters start, and put them on the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from forge_cli.core.errors import UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.models.adapters import AdapterConfig, attach, get_module, target_modules
from forge_cli.models.backend import mx, nn
from forge_cli.train.pissa import lora_init, pissa_init

INITS = ("pissa", "lora")


def start_adapters(
    model: nn.Module,
    config: AdapterConfig,
    *,
    targets: list[str],
    layers: int,
    seed: int,
    initial: Mapping[str, mx.array] = MappingProxyType({}),
    reporter: Reporter = SILENT,
) -> tuple[AdapterConfig, dict[str, mx.array]]:
    """Attach fresh adapters to a dense model and quantise it, in place.

    Args:
        initial: A₀, B₀ of the run that is resumed: another number of threads rounds an SVD
            differently, and the residual must stay the one that was trained.

    Returns:
        The config with the modules chosen, and A₀, B₀ by `<module>.A` / `<module>.B`
        (empty when B₀ = 0 and nothing was taken out of W).

    Raises:
        UsageError: no layer matches, or the rank is larger than a layer.
    """
    if config.init not in INITS:
        raise UsageError(f"init {config.init}: unknown", f"known: {', '.join(INITS)}")
    names = target_modules(model, targets, layers)
    arrays: dict[str, mx.array] = {}
    with reporter.task(f"{config.init} init", len(names)) as task:
        for index, name in enumerate(names):
            weight = get_module(model, name).weight.astype(mx.float32)
            if config.rank > min(weight.shape):
                raise UsageError(
                    f"rank {config.rank}: larger than {name} {tuple(weight.shape)}",
                    f"choose a rank up to {min(weight.shape)}",
                )
            if f"{name}.A" in initial and len(initial[f"{name}.A"]) == config.rank:
                A, B = initial[f"{name}.A"], initial[f"{name}.B"]
            elif config.init == "pissa":
                A, B = pissa_init(weight, rank=config.rank, scale=config.scale, seed=seed + index)
            else:
                A, B = lora_init(weight, rank=config.rank, seed=seed + index)
            arrays |= {f"{name}.A": A, f"{name}.B": B}
            mx.eval(A, B)
            task.advance()
    config = replace(config, modules=names)
    taken = arrays if config.init == "pissa" else {}
    attach(model, config, arrays, taken)
    return config, taken
