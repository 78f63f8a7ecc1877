"""Load what was written as its users do, and compare it with the trained model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from forge_cli.core.errors import GateFailed
from forge_cli.core.events import Reporter
from forge_cli.export.parity import THRESHOLDS, Probe, Threshold, divergence
from forge_cli.models.adapters import attach
from forge_cli.models.backend import mx, nn
from forge_cli.models.load import load_dense
from forge_cli.models.peft import read_peft

PLAIN = {
    # Of a model without preferences, such as a tiny random one, eight bits of mantissa move many a
    # likeliest token: KL is what tells.
    "bfloat16": Threshold(0.95, THRESHOLDS["bf16"].mean_kl),
    "float16": THRESHOLDS["f16"],
    "float32": THRESHOLDS["f32"],
}
# By bits. Beside each: SmolLM2-135M tuned on `asyncio` (QPiSSA, 40 steps), groups of 64, over
# 1,722 held-out positions (benchmarks/mlx_bits.py).
QUANTISED = {
    8: Threshold(0.95, 0.01),  # 97.9 %, 1.0e-3
    6: Threshold(0.86, 0.07),  # 92.3 %, 0.027
    4: Threshold(0.70, 0.55),  # 81.1 %, 0.25
}
# 3 bits erased it: 34 %, 2.9, and 2.5 % [-28 %, 30 %] of the gain; they are not offered.


def read_back(kind: str, folder: Path, model: str) -> nn.Module:
    """The model of an exported directory; mlx-lm's own code puts its adapters on.

    Args:
        model: the original base, for peft.
    """
    if kind in ("mlx", "safetensors"):
        return load_dense(str(folder)).model
    if kind == "adapter":
        from mlx_lm.tuner.utils import load_adapters

        base = load_dense(str(folder / "base")).model
        return load_adapters(base, str(folder / "adapter"))
    loaded, found = load_dense(model), read_peft(folder)
    attach(loaded.model, replace(found.config, model=model), found.arrays, {})
    return loaded.model


def compare_logits(
    model: nn.Module,
    folder: Path,
    probes: Sequence[Probe],
    limit: Threshold | None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Positions, top1_agreement, mean_kl and max_kl of a model against the trained one.

    Both compute in the device's compute dtype: what is told is what storing it cost.

    Args:
        limit: how near it has to be; None: the distance is only told.

    Raises:
        GateFailed: it is not so near; the folder is renamed to `….rejected`.
    """
    found = [divergence(probe.logits, _logits(model, probe.ids)) for probe in probes]
    kl, same = (np.concatenate(values) for values in zip(*found, strict=True))
    top1, mean_kl = float(same.mean()), float(kl.mean())
    distance = (
        f"top token equal at {top1:.2%} of {len(kl)} positions, mean KL {mean_kl:.2g}, "
        f"worst {kl.max():.2g}"
    )
    if limit and (top1 < limit.top1_agreement or not mean_kl <= limit.mean_kl):
        rejected = folder.with_name(f"{folder.name}.rejected")
        shutil.rmtree(rejected, ignore_errors=True)
        folder.rename(rejected)
        raise GateFailed(
            f"{rejected}: not the trained model: {distance} (needed: {limit.top1_agreement:.0%}, "
            f"{limit.mean_kl:g})",
            "a larger --mlx-bits or another --dtype is nearer; --to adapter is exact",
        )
    if limit:
        reporter.note(f"{folder.name}: {distance}")
    else:
        reporter.warn(
            f"{folder.name}: the adapter was trained over a quantised residual; over the "
            f"original base it is near, not equal: {distance}. --to adapter is exact"
        )
    return {
        "positions": len(kl),
        "top1_agreement": top1,
        "mean_kl": mean_kl,
        "max_kl": float(kl.max()),
    }


def _logits(model: nn.Module, ids: list[int]) -> np.ndarray:
    return np.array(model(mx.array([ids]))[0].astype(mx.float32))
