"""Train adapters on a quantised base: `train.run(...)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Example


@dataclass(frozen=True)
class TrainResult:
    """What training came to."""

    steps: int
    best_step: int
    best_valid_loss: float
    adapters: Path


def run(
    examples: Sequence[Example],
    *,
    out: Path,
    model: str,
    init: str = "pissa",
    rank: int = 16,
    rank_pattern: Mapping[str, int] = MappingProxyType({}),
    alpha: float | None = None,
    rslora: bool = False,
    dora: bool = False,
    svd_iterations: int | str = 4,
    alternations: int = 5,
    bits: int = 4,
    quant_mode: str = "affine",
    group_size: int = 64,
    targets: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"),
    layers: int | str = 16,
    steps: int | None = None,
    epochs: float = 1.0,
    learning_rate: float = 1e-4,
    warmup: float = 0.05,
    weight_decay: float = 0.0,
    clip: float = 1.0,
    valid_every: int = 20,
    valid_rows: int = 24,
    max_tokens: int = 2048,
    seed: int = 0,
    cache: Path | None = None,
    reporter: Reporter = SILENT,
) -> TrainResult:
    """Train on the rows of split "train"; the best on split "valid" is kept in `out`/adapters.

    Writes `out`/metrics.jsonl, `out`/checkpoints/latest.safetensors and `out`/adapters/.
    Run again with the same values it resumes.

    Args:
        init, svd_iterations, alternations: see `train.inits`; "exact": the exact SVD.
        targets, layers, rank_pattern: see `models.targets`.
        bits, quant_mode, group_size: see `models.quantise`.
        cache: folder that keeps the SVDs of an init for other runs.

    Raises:
        UsageError: settings that do not go together or with this model.
        ForgeError: no training or validation rows, a row that is too long, a loss that is
            not a number, a model that cannot be loaded.
    """
    from forge_cli.models.adapters import (
        AdapterConfig,
        adapter_arrays,
        load_initial,
        residual_hash,
        save_adapters,
    )
    from forge_cli.models.backend import mx
    from forge_cli.models.load import load_dense
    from forge_cli.models.quantise import check_quantiser
    from forge_cli.train.batches import make_groups
    from forge_cli.train.initial import StartSettings, start_adapters
    from forge_cli.train.loop import Loop, Schedule, fit

    train = [e for e in examples if e.split == "train"]
    valid = [e for e in examples if e.split == "valid"][:valid_rows]
    if not train or not valid:
        raise ForgeError(
            f"{len(train)} training and {len(valid)} validation rows: both are needed",
            "run forge validate first; a very small repository has too few files to split",
        )
    check_quantiser(bits=bits, group_size=group_size, mode=quant_mode)
    mx.reset_peak_memory()
    loaded = load_dense(model, reporter=reporter)
    groups = make_groups(train, loaded.tokenizer, max_tokens=max_tokens)
    steps = steps or max(1, round(len(groups) * epochs))
    config = AdapterConfig(
        model=model, init=init, rank=rank, alpha=alpha or float(rank), bits=bits,
        group_size=group_size, mode=quant_mode, modules=[], rslora=rslora, dora=dora,
    )  # fmt: skip
    folder, latest = out / "adapters", out / "checkpoints" / "latest.safetensors"
    config, initial = start_adapters(
        loaded.model, config, targets=targets, layers=layers, rank_pattern=rank_pattern,
        settings=StartSettings(seed, svd_iterations, alternations, cache),
        initial=load_initial(folder) if latest.exists() else {},
        stored=loaded.stored_as(config.quantiser), reporter=reporter,
    )  # fmt: skip
    config = replace(config, residual_sha256=residual_hash(loaded.model))
    latest.parent.mkdir(parents=True, exist_ok=True)
    reporter.note(
        f"{len(train)} rows in {len(groups)} contexts, {steps} steps, "
        f"{len(config.modules)} adapters of rank {rank} ({init})"
    )
    progress = fit(
        Loop(
            model=loaded.model,
            train=groups,
            valid=make_groups(valid, loaded.tokenizer, max_tokens=max_tokens),
            schedule=Schedule(learning_rate, steps, warmup),
            weight_decay=weight_decay,
            clip=clip,
            seed=seed,
            valid_every=valid_every,
            checkpoint=latest,
            metrics=out / "metrics.jsonl",
            keep_best=lambda: save_adapters(folder, config, adapter_arrays(loaded.model), initial),
            reporter=reporter,
        )
    )
    return TrainResult(progress.step, progress.best_step, progress.best_loss, folder)
