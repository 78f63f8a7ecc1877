"""What goes into each matrix of a model while it reads texts: mean squares, column by column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.models.backend import mx, nn
from forge_cli.models.lora import LoRALinear

_LINEAR = (nn.Linear, nn.QuantizedLinear, LoRALinear)
_EMBEDDING = (nn.Embedding, nn.QuantizedEmbedding)  # a head where they are tied


def mean_squares(
    model: nn.Module, rows: Sequence[Sequence[int]], reporter: Reporter = SILENT
) -> dict[str, np.ndarray]:
    """Mean of x² over all tokens for each input column of each matrix that was multiplied by.

    Args:
        model: tuned or not, quantised or not; it is left as it was.
        rows: token ids of each text.

    Returns:
        By checkpoint name of the weight: float32 [in]; of experts [experts, in], each over the
        tokens that it was chosen for, ones where there were none.

    Raises:
        ForgeError: a value is not finite.
    """
    squares: dict[str, mx.array] = {}
    counts: dict[str, mx.array] = {}

    def add(name: str, module: Any, x: mx.array, experts: mx.array | None) -> None:
        width = x.shape[-1]
        if experts is None:
            x = x.reshape(1, -1, width)
            total, count = mx.square(x.astype(mx.float32)).sum(axis=1), mx.array([x.shape[1]])
        else:  # x [..., 1 or chosen, 1, in], experts [..., chosen]
            own = mx.square(x.squeeze(-2).astype(mx.float32))
            own = mx.broadcast_to(own, (*experts.shape, width)).reshape(-1, width)
            which, number = experts.flatten(), module.weight.shape[0]
            total = mx.zeros((number, width)).at[which].add(own)
            count = mx.zeros(number, mx.int32).at[which].add(1)
        squares[name] = squares.get(name, 0) + total
        counts[name] = counts.get(name, 0) + count

    with _watched(model, add), reporter.task("weighing columns", len(rows)) as task:
        for ids in rows:
            model(mx.array([ids]))  # lazy: the logits are never computed
            mx.eval(squares, counts)
            task.advance()
    found = {}
    for name, total in squares.items():
        count = counts[name][:, None]
        mean = np.array(mx.where(count > 0, total / mx.maximum(count, 1), 1.0))
        if not np.isfinite(mean).all():
            raise ForgeError(f"inputs of {name} are not finite", "export without importance rows")
        found[name] = mean if len(mean) > 1 else mean[0]
    return found


@contextmanager
def _watched(model: nn.Module, add: Callable[..., None]) -> Iterator[None]:
    """Each matrix tells `add` what it is multiplied with."""
    from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

    known = (*_LINEAR, *_EMBEDDING, SwitchLinear, QuantizedSwitchLinear)
    inside = {id(m.base) for m in model.modules() if isinstance(m, LoRALinear)}
    changed = []
    try:
        for name, module in model.named_modules():
            if isinstance(module, known) and id(module) not in inside:
                changed.append((module, type(module)))
                _become(module, _watching(type(module), f"{name}.weight", add))
        yield
    finally:
        for module, kind in changed:
            _become(module, kind)


def _become(module: nn.Module, kind: type) -> None:
    # A call is looked up in the class: a wrapper in its place would hide what else is asked of it.
    object.__setattr__(module, "__class__", kind)


def _watching(kind: type, name: str, add: Callable[..., None]) -> type:
    method = "as_linear" if issubclass(kind, _EMBEDDING) else "__call__"
    plain = getattr(kind, method)

    def call(self: Any, x: mx.array, *rest: Any, **named: Any) -> Any:
        add(name, self, x, rest[0] if rest else None)
        return plain(self, x, *rest, **named)

    return type(kind.__name__, (kind,), {method: call})


__all__ = ["mean_squares"]
