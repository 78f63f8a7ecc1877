"""The trained function as plain weights: deq(W_res) + s·B·A in float32, layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from forge_cli.export.gguf import Weight
from forge_cli.models.adapters import LoRALinear
from forge_cli.models.backend import mx, nn
from forge_cli.models.quantise import dense_weight, logical_shape

_MATRICES = (nn.Linear, nn.Embedding)


def merged_weights(model: nn.Module) -> dict[str, Weight]:
    """Every weight by its checkpoint name, computed when it is read.

    What was trained is deq(W_res) + s·B·A. Adding B·A to the original weights would be
    another function, for W_res is not W.
    """
    weights: dict[str, Weight] = {}
    inside = {id(m.base) for m in model.modules() if isinstance(m, LoRALinear)}
    for name, module in model.named_modules():
        if id(module) in inside:
            continue
        if isinstance(module, LoRALinear):
            weights[f"{name}.weight"] = _weight(logical_shape(module.base), module.merged)
            module = module.base
        elif isinstance(module, _MATRICES) or "scales" in module:
            weights[f"{name}.weight"] = _linear(module)
        elif "weight" in module:
            weights[f"{name}.weight"] = _plain(module.weight)
        # The `bias` of a linear layer; quantisation keeps its own in `biases`.
        if "bias" in module:
            weights[f"{name}.bias"] = _plain(module.bias)
    return weights


def _linear(module: nn.Module) -> Weight:
    return _weight(logical_shape(module), lambda: dense_weight(module))


def _plain(array: mx.array) -> Weight:
    return _weight(tuple(array.shape), lambda: array.astype(mx.float32))


def _weight(shape: tuple[int, ...], compute: Callable[[], mx.array]) -> Weight:
    return Weight(shape, lambda: np.array(compute()))
