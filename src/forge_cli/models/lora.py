"""A linear layer with a low-rank update: LoRA, and DoRA's magnitude on top of it.

    LoRA   y = x·W_resᵀ + s·(x·Aᵀ)·Bᵀ + bias                    arXiv 2106.09685
    DoRA   y = (m / ‖V‖) ⊙ (x·Vᵀ) + bias,  V = W_res + s·B·A     arXiv 2402.09353, eq. 5

with A [r, in], B [out, r], and s = alpha/r, or alpha/√r (rsLoRA, arXiv 2312.03732). ‖V‖ is
the norm of each output row; it is a constant to the gradient (§4.3 of the DoRA paper).
"""

from __future__ import annotations

from forge_cli.models.backend import mx, nn
from forge_cli.models.quantise import dense_weight


class LoRALinear(nn.Module):
    """A frozen linear layer with a trained low-rank update.

    Args:
        base: the residual, quantised or not, with its bias.
        A: [r, in]. B: [out, r]. scale: s.
        m: float32 [out], DoRA's magnitudes; None: plain LoRA.
    """

    def __init__(
        self, base: nn.Module, A: mx.array, B: mx.array, scale: float, m: mx.array | None = None
    ) -> None:
        super().__init__()
        self.base = base
        self.A = A
        self.B = B
        self.scale = scale
        if m is not None:
            self.m = m
        # Set by `settle`: while A and B stand still the norm need not be computed again.
        self._norm: mx.array | None = None

    def __call__(self, x: mx.array) -> mx.array:
        """[…, in] → […, out], in the dtype of x."""
        y = self.base(x) + (self.scale * (x @ self.A.T)) @ self.B.T
        if "m" not in self:
            return y
        norm = row_norms(self) if self._norm is None else self._norm
        ratio = (self.m / mx.stop_gradient(norm)).astype(x.dtype)
        if "bias" in self.base:
            bias = self.base.bias
            return ratio * (y - bias) + bias
        return ratio * y

    def merged(self) -> mx.array:
        """The weight of the trained function, float32 [out, in]: V, or (m/‖V‖)·V."""
        update = self.B.astype(mx.float32) @ self.A.astype(mx.float32)
        V = dense_weight(self.base) + self.scale * update
        return V if "m" not in self else (self.m / row_norms(self))[:, None] * V

    def settle(self) -> None:
        """Take ‖V‖ for constant from now on: for a model that is no longer trained."""
        if "m" in self:
            self._norm = row_norms(self)
            mx.eval(self._norm)


def row_norms(layer: LoRALinear) -> mx.array:
    """‖V‖ of each output row, float32 [out], V = W_res + s·B·A.

    ‖V‖² = ‖W‖² + s·⟨B, 2·W·Aᵀ + s·B·(A·Aᵀ)⟩ row by row, so that no [out, in] product is
    kept for it.
    """
    W = dense_weight(layer.base)
    A, B = layer.A.astype(mx.float32), layer.B.astype(mx.float32)
    cross = 2 * (W @ A.T) + layer.scale * (B @ (A @ A.T))
    squares = mx.square(W).sum(axis=1) + layer.scale * (B * cross).sum(axis=1)
    return mx.sqrt(mx.maximum(squares, 1e-12))


def without_start(
    weight: mx.array, A0: mx.array | None, B0: mx.array | None, scale: float
) -> mx.array:
    """W − s·B₀A₀ in the dtype of W [out, in]; W itself where nothing was taken out.

    One function for the inits and for `attach`: the bits must be the same.
    """
    if A0 is None or B0 is None:
        return weight
    return (weight.astype(mx.float32) - scale * (B0 @ A0)).astype(weight.dtype)
