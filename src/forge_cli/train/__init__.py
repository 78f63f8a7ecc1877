"""Train adapters on a quantised base: `train.run(...)`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Example, Preference
from forge_cli.models.adapters import (
    AdapterConfig,
    adapter_arrays,
    save_adapters,
)
from forge_cli.models.backend import device_memory, mx
from forge_cli.models.head_loss import Penalties
from forge_cli.models.load import load_to_quantise, load_tokenizer
from forge_cli.models.quantise import check_quantiser
from forge_cli.models.resolve import resolve
from forge_cli.train.budget import MEASURED, Budget
from forge_cli.train.callbacks import Callback, make_callbacks, make_trackers
from forge_cli.train.checkpoint import Progress, checkpoints
from forge_cli.train.compiled import wants_compiled
from forge_cli.train.continued import put_adapters
from forge_cli.train.data import make_data
from forge_cli.train.distributed import ALONE, World
from forge_cli.train.distributed.sharing import (
    batches_a_step,
    must_agree,
    own_callbacks,
    share_run,
    start_together,
)
from forge_cli.train.fitting import check_memory
from forge_cli.train.gradient_checkpointing import checkpoint_blocks
from forge_cli.train.initial import StartSettings
from forge_cli.train.loop import Loop, fit
from forge_cli.train.memory_plan import Training
from forge_cli.train.micro_batches import Batch, plan_steps
from forge_cli.train.neftune import Neftune
from forge_cli.train.optimisers import make_optimiser
from forge_cli.train.schedules import Kind, Schedule, suited_rate
from forge_cli.train.step import nothing


@dataclass(frozen=True)
class TrainResult:
    """What training came to.

    Attributes:
        rows: that were trained. left_out: training rows that were not.
        epochs: passes over the batches that were planned.
    """

    steps: int
    best_step: int
    best_valid_loss: float
    adapters: Path
    rows: int
    left_out: int
    epochs: float


def run(
    examples: Sequence[Example | Preference],
    *,
    out: Path,
    model: str,
    init: str = "qpissa",
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
    adapters: Path | str | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    budget: float | None = None,
    learning_rate: float | None = None,
    warmup: float = 0.05,
    weight_decay: float = 0.0,
    clip: float = 1.0,
    valid_every: int = 20,
    valid_rows: int = 24,
    max_tokens: int = 2048,
    seed: int = 0,
    loss: str = "sft",
    span_weights: Sequence[float] = (0.5, 1.0, 2.0),
    beta: float = 0.1,
    valid_share: float = 0.1,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    optimiser: str = "adamw",
    schedule: Kind = "cosine",
    decay: float = 0.2,
    accumulate: int = 1,
    step_tokens: int = 0,
    packing: bool = True,
    neftune: float = 0.0,
    gradient_checkpointing: bool = False,
    compile_step: str = "auto",
    memory_limit: float | None = None,
    save_every: int = 0,
    keep_last: int = 2,
    keep_start: bool = True,
    patience: int = 0,
    min_delta: float = 0.0,
    sample_every: int = 0,
    sample_rows: int = 3,
    track: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
    cache: Path | None = None,
    reporter: Reporter = SILENT,
    world: World = ALONE,
) -> TrainResult:
    """Train on the rows of split "train"; the best on split "valid" is kept in `out`/adapters.

    Writes metrics.jsonl, report.html, checkpoints/ and adapters/ into `out`.
    Run again with the same values it resumes. `callbacks` come after Forge's own.

    Args:
        learning_rate: the peak; None: see `train.schedules.suited_rate`.
        loss: "sft", or "raft": `span_weights` for the tokens of reason, quotes and answer. The
            validation loss is always the plain mean over all tokens of the answers. "dpo"
            takes preferences and their loss by `beta`; those without a split are split by file.
        init, svd_iterations, alternations: see `train.inits`; "exact": the exact SVD.
        epochs: passes over the rows; None: `train.micro_batches.suited_epochs`, but one where
            training goes on from adapters or learns preferences.
        step_tokens, packing: see `train.micro_batches`.
        targets, layers, rank_pattern: see `models.targets`.
        adapters: a run, or a folder of Forge's or PEFT's adapters to go on from; layers, ranks
            and scales are then theirs (see `train.continued`).
        budget: seconds; of the steps only so many are taken as fit (see `train.budget`), and
            the warm-up is the steps that are measured for it.
        compile_step: "auto", "on" or "off" (see `train.compiled`).
        bits, quant_mode, group_size: see `models.quantise`.
        world: the processes that train together (see `train.distributed`). Rank 0 writes; the
            `out` of the others is a folder of their own, and `accumulate` at least their number.
        keep_start: whether the adapters that training begins with may be the best; else a trained
            step is kept even if its validation loss is higher.
        cache: folder that keeps, for other runs, the SVDs of an init and what memory was taken.

    Raises:
        UsageError: an unknown optimiser or tracker, or a tracker that is not installed; settings
            that do not go together or with this model.
        ForgeError: no training or validation rows, a row that is too long, a loss that is
            not a number, a model that cannot be loaded, too little memory.
    """
    must_agree(world, locals(), reporter)
    started, starts = time.monotonic(), cache / "starts" if cache else None
    data = make_data(
        examples, loss, valid_rows, span_weights=span_weights, valid_share=valid_share, seed=seed,
        penalties=Penalties(label_smoothing, z_loss), beta=beta, packing=packing,
    )  # fmt: skip
    check_quantiser(bits=bits, group_size=group_size, mode=quant_mode)
    trackers, compiled = make_trackers(track), wants_compiled(compile_step)
    mx.reset_peak_memory()
    mx.random.seed(seed)
    memory_bytes = int(memory_limit * 1e9) if memory_limit else device_memory() // world.here
    data.tokenise(load_tokenizer(resolve(model, reporter=reporter)), max_tokens)
    how = Training(
        rank, rank_pattern, targets, layers, bits, group_size, init, optimiser, dora,
        gradient_checkpointing,
    )  # fmt: skip
    fits, measure = check_memory(model, how, data.loads, memory_bytes, cache, reporter)
    loaded = load_to_quantise(model, reporter=reporter)
    config = AdapterConfig(
        model=model, init=init, rank=rank, alpha=alpha or float(rank), bits=bits,
        group_size=group_size, mode=quant_mode, modules=[], rslora=rslora, dora=dora,
    )  # fmt: skip
    folder = out / "adapters"
    share_run(world, out, reporter)
    config, initial = start_together(world, loaded, out, reporter, lambda: put_adapters(
        loaded, config, folder, resumed=bool(checkpoints(out / "checkpoints")),
        adapters=Path(adapters) if adapters else None, targets=targets, layers=layers,
        rank_pattern=rank_pattern, reporter=reporter,
        settings=StartSettings(seed, svd_iterations, alternations, starts),
    ))  # fmt: skip
    data.start(loaded.model, out, reporter)
    plan = plan_steps(
        data.train, steps=steps, epochs=epochs, once=bool(adapters) or loss == "dpo", seed=seed,
        step_tokens=step_tokens, accumulate=batches_a_step(world, accumulate, reporter),
    )  # fmt: skip
    if gradient_checkpointing:
        checkpoint_blocks(loaded.model)
    rate = learning_rate or suited_rate(loaded.config, config.init, loss)
    title = f"{init}, rank {rank}, learning rate {rate:.2g}"
    reporter.note(f"{data.about}, {len(plan)} steps, {len(config.modules)} adapters ({title})")
    own = make_callbacks(
        loaded, data.samples,
        lambda: save_adapters(folder, config, adapter_arrays(loaded.model), initial),
        title=f"{out.name}: {title}", memory_bytes=memory_bytes, patience=patience,
        min_delta=min_delta, sample_every=sample_every, sample_rows=sample_rows,
    )  # fmt: skip
    if budget:
        warmup, own = MEASURED / len(plan), [*own, Budget(budget, plan, valid_every, started)]
    progress = fit(Loop(
        model=loaded.model, loss=data.loss, valid_loss=data.valid_loss, plan=plan,
        valid=data.valid, optimiser=make_optimiser(
            optimiser, loaded.model, weight_decay=weight_decay, compiled=compiled
        ), schedule=Schedule(rate, len(plan), warmup, schedule, decay), clip=clip,
        valid_every=valid_every, out=out, reporter=reporter, world=world,
        callbacks=own_callbacks(world, [*own, *measure(plan), *trackers, *callbacks]),
        save_every=save_every, keep_last=keep_last, keep_start=keep_start, budgeted=bool(budget),
        max_tokens=fits.max_tokens if fits else 0,
        around=Neftune(loaded.model, neftune, seed) if neftune else nothing,
    ))  # fmt: skip
    return _result(progress, folder, data.train, plan)


def _result(
    progress: Progress, folder: Path, batches: Sequence[Batch], plan: Sequence[Sequence[Batch]]
) -> TrainResult:
    trained = {name for step in plan[: progress.step] for batch in step for name in batch.ids}
    left_out = {name for batch in batches for name in batch.ids} - trained
    return TrainResult(
        progress.step, progress.best_step, progress.best_loss, folder, len(trained), len(left_out),
        sum(map(len, plan)) / len(batches),
    )  # fmt: skip
