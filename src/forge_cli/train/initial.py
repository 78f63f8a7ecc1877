"""Choose the layers, compute where their adapters start, and put them on the model."""

from __future__ import annotations

from dataclasses import replace

from forge_cli.core.errors import UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.models.adapters import AdapterConfig, attach, get_module, target_modules
from forge_cli.models.backend import mx, nn
from forge_cli.train.pissa import lora_init, pissa_init


def start_adapters(
    model: nn.Module,
    config: AdapterConfig,
    *,
    targets: list[str],
    layers: int,
    seed: int,
    reporter: Reporter = SILENT,
) -> tuple[AdapterConfig, dict[str, mx.array]]:
    """Attach fresh adapters to a dense model and quantise it, in place.

    Returns:
        The config with the modules chosen, and A₀, B₀ by `<module>.A` / `<module>.B`
        (empty when B₀ = 0 and nothing was taken out of W).

    Raises:
        UsageError: no layer matches, or the rank is larger than a layer.
    """
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
            if config.init == "pissa":
                A, B = pissa_init(weight, rank=config.rank, scale=config.scale, seed=seed + index)
            else:
                A, B = lora_init(weight, rank=config.rank, seed=seed + index)
            arrays |= {f"{name}.A": A, f"{name}.B": B}
            mx.eval(A, B)
            task.advance()
    config = replace(config, modules=names)
    initial = arrays if config.init == "pissa" else {}
    attach(model, config, arrays, initial)
    return config, initial
