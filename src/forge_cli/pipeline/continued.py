"""Settings of a training that goes on from adapters: what they fix is taken from them."""

from __future__ import annotations

from pathlib import Path

from forge_cli.core.config import Resolved
from forge_cli.core.errors import UsageError


def with_adapters(resolved: Resolved) -> Resolved:
    """The settings with model, init, rank and quantiser as the adapters have them.

    Of PEFT's only the model is taken: they carry no quantiser.

    Raises:
        UsageError: a flag says otherwise, or there are no such adapters.
    """
    s = resolved.settings
    if s.adapters is None:
        return resolved
    from forge_cli.models.peft import adapter_folder, is_peft, read_either

    path = Path(s.adapters)
    config = read_either(path).config
    fixed: dict[str, object] = {}
    if config.model and (not is_peft(adapter_folder(path)) or _default(resolved, "model")):
        fixed["model"] = config.model
    if not is_peft(adapter_folder(path)):
        fixed |= {
            "init": config.init, "rank": config.rank, "alpha": config.alpha,
            "bits": config.bits, "group_size": config.group_size, "quant_mode": config.mode,
            "rslora": config.rslora, "dora": config.dora,
        }  # fmt: skip
    for key, value in fixed.items():
        if resolved.origins[key] == "flag" and getattr(s, key) != value:
            raise UsageError(
                f"--{key} {getattr(s, key)}: {path} has {key} {value}, and goes on with it",
                f"leave --{key} out, or start without --adapters",
            )
    origins = resolved.origins | dict.fromkeys(fixed, f"adapters {path}")
    return Resolved(s.model_copy(update=fixed), origins)


def _default(resolved: Resolved, key: str) -> bool:
    return resolved.origins[key] == "default"
