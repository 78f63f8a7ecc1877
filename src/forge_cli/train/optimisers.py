"""The optimisers of MLX under their names, set up for adapters."""

from __future__ import annotations

from typing import Any, get_args

from forge_cli.core.config import OptimiserName
from forge_cli.core.errors import UsageError
from forge_cli.models.backend import mx, nn
from forge_cli.train.compiled import compile_update

OPTIMISERS: tuple[str, ...] = get_args(OptimiserName)


def make_optimiser(
    name: str, model: nn.Module, *, weight_decay: float, compiled: bool = False
) -> Any:
    """An optimiser with its state at zero for the trainable arrays of `model`.

    The learning rate is set before each step; 16-bit arrays get float32 masters.

    adamw: arXiv 1711.05101, with bias correction. adafactor: arXiv 1804.04235, second
    moments as row and column sums, so its state is r + in numbers for an A of r × in; the
    rate is the schedule's, not its own. lion: arXiv 2302.06675, one moment; wants a rate
    3-10 times smaller. muon: momentum orthogonalised by Newton-Schulz, for matrices only;
    arrays of another rank (DoRA's magnitudes) go to adamw.

    Args:
        compiled: see `train.compiled`.

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
    if compiled:
        compile_update(made)
    return MasterWeights(made, model) if _has_half(model) else _started(made, model)


class MasterWeights:
    """An optimiser over float32 copies of 16-bit arrays (arXiv 1710.03740, section 3.1).

    Adapters are 16-bit where activations are, or they would promote them. But bfloat16 has
    8 bits of precision: a step smaller than 1/256 of a weight would be lost in rounding. The
    copies take the steps, and the model gets them rounded.
    """

    def __init__(self, optimiser: Any, model: nn.Module) -> None:
        from mlx.utils import tree_map

        self.optimiser = optimiser
        self.masters = tree_map(lambda p: p.astype(mx.float32), model.trainable_parameters())
        optimiser.init(self.masters)

    @property
    def state(self) -> dict[str, Any]:
        """The optimiser's state and the copies."""
        return {"optimiser": self.optimiser.state, "masters": self.masters}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.optimiser.state, self.masters = state["optimiser"], state["masters"]

    @property
    def learning_rate(self) -> mx.array:
        """Of the next step."""
        return self.optimiser.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.optimiser.learning_rate = rate

    def update(self, model: nn.Module, gradients: dict[str, Any]) -> None:
        """Step the copies by float32 gradients, and round them into the model."""
        from mlx.utils import tree_map

        self.masters = self.optimiser.apply_gradients(gradients, self.masters)
        arrays = model.trainable_parameters()
        model.update(tree_map(lambda new, old: new.astype(old.dtype), self.masters, arrays))


def _started(optimiser: Any, model: nn.Module) -> Any:
    optimiser.init(model.trainable_parameters())
    return optimiser


def _has_half(model: nn.Module) -> bool:
    from mlx.utils import tree_flatten

    return any(array.dtype != mx.float32 for _, array in tree_flatten(model.trainable_parameters()))


def _is_matrix(_: str, array: mx.array) -> bool:
    return array.ndim == 2
