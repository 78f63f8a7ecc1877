"""Where A and B start: one file a method, each with the equations of its paper.

All take a weight W [out, in] and give a `Start`. `pissa` and `qpissa` take a part of W out of
the base before it is quantised, and train that part; `lora` trains beside the whole W;
`loftq` trains what the quantiser lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from forge_cli.models.backend import mx

# `dora` is LoRA's start with magnitudes; the setting dora puts them over any other start.
INITS = ("pissa", "qpissa", "lora", "loftq", "dora")

# deq(quant(·)) of a weight [out, in], dtype kept.
Quantise = Callable[[mx.array], mx.array]


@dataclass(frozen=True)
class Start:
    """Where the adapter of one layer starts, and what its base loses for it.

    Attributes:
        A, B: [r, in] and [out, r], float32: what is trained.
        A0, B0: of the same shapes: the base becomes quant(W − s·B₀A₀). None: quant(W).
    """

    A: mx.array
    B: mx.array
    A0: mx.array | None = None
    B0: mx.array | None = None


__all__ = ["INITS", "Quantise", "Start"]
