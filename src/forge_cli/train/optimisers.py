"""The optimisers of MLX under their names, set up for adapters."""

from __future__ import annotations

from typing import Any, get_args

from forge_cli.core.config import OptimiserName
from forge_cli.core.errors import UsageError
from forge_cli.models.backend import mx, nn

OPTIMISERS: tuple[str, ...] = get_args(OptimiserName)


def make_optimiser(name: str, model: nn.Module, *, weight_decay: float) -> Any:
    """An optimiser with its state at zero for the trainable arrays of `model`.

    The learning rate is set before each step. adamw: arXiv 1711.05101, with bias
    correction. adafactor: arXiv 1804.04235, second moments as row and column sums, so its
    state is r + in numbers for an A of r × in; the rate is the schedule's, not its own.
    lion: arXiv 2302.06675, one moment; wants a rate 3-10 times smaller. muon: momentum
    orthogonalised by Newton-Schulz, for matrices only; arrays of another rank (DoRA's
    magnitudes) go to adamw.

    Raises:
        UsageError: no such optimiser.
    """
    import mlx.optimizers as optim

    if name == "adamw":
        made: Any = optim.AdamW(0.0, weight_decay=weight_decay, bias_correction=True)
    elif name == "adafactor":
        made = optim.Adafactor(
            0.0, weight_decay=weight_decay, relative_step=False, scale_parameter=False
        )
    elif name == "lion":
        made = optim.Lion(0.0, weight_decay=weight_decay)
    elif name == "muon":
        rest = optim.AdamW(0.0, weight_decay=weight_decay, bias_correction=True)
        matrices = optim.Muon(0.0, weight_decay=weight_decay)
        made = optim.MultiOptimizer([matrices, rest], [_is_matrix])
    else:
        raise UsageError(f"optimiser {name}: unknown", f"known: {', '.join(OPTIMISERS)}")
    made.init(model.trainable_parameters())
    return made


def _is_matrix(_: str, array: mx.array) -> bool:
    return array.ndim == 2
