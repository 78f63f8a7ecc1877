"""Cross-entropy of supervised positions, without keeping the logits.

The logits of a large vocabulary are the largest array of a training step. Here they are made
for some rows at a time, and the backward pass makes them again (the design of torchtune's
`LinearCrossEntropyLoss`): what is kept is one number a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from forge_cli.models import cpu_math
from forge_cli.models.backend import mx, on_gpu

# Bytes of float32 logits at once: fewer rows would make the product with the head slow.
_CHUNK_BYTES = 1 << (24 if on_gpu() else 23)
# Of which exponentials are made at once: many times as much is held of what MLX on the CPU has
# begun with. A GPU wants work in large pieces.
_SLICE_BYTES = _CHUNK_BYTES if on_gpu() else 1 << 21


@dataclass(frozen=True)
class Penalties:
    """What is added to the cross-entropy.

    Attributes:
        smoothing: ε of label smoothing (arXiv 1512.00567, §7): the target has probability
            1 − ε, and ε is spread evenly over the vocabulary.
        z: weight of log² Z, which keeps the logits' scale from drifting (arXiv 2204.02311, §5).
    """

    smoothing: float = 0.0
    z: float = 0.0


NONE = Penalties()


def head_losses(
    head: Callable[[mx.array], mx.array],
    hidden: mx.array,
    targets: mx.array,
    vocabulary: int,
    penalties: Penalties = NONE,
) -> mx.array:
    """Loss of each position, float32 [S], in nats; the gradient goes to `hidden` alone.

    Args:
        head: frozen; hidden states [n, D] → logits [n, V].
        hidden: [S, D]. targets: int32 [S].
        vocabulary: V, by which the rows of a chunk are chosen.
    """
    rows, few = chunk_rows(vocabulary), max(1, _SLICE_BYTES // (4 * vocabulary))

    def sliced(made: Callable[[mx.array, slice], mx.array], hidden: mx.array, part: slice) -> Any:
        """`made` of the logits of some rows of a chunk at a time."""
        logits = head(hidden).astype(mx.float32)
        found: list[mx.array] = []
        for own in _parts(hidden.shape[0], few):
            of = slice(part.start + own.start, part.start + own.stop)
            found.append(made(after(logits[own], found), of))
        return mx.concatenate(found)

    @mx.custom_function
    def losses(hidden: mx.array) -> mx.array:
        parts: list[mx.array] = []
        for part in _parts(hidden.shape[0], rows):
            own = after(hidden[part], parts)
            parts.append(sliced(lambda x, of: _losses(x, targets[of], penalties), own, part))
        return mx.concatenate(parts)

    @losses.vjp
    def backward(hidden: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
        parts: list[mx.array] = []

        def slopes(logits: mx.array, of: slice) -> mx.array:
            return _slopes(logits, targets[of], penalties) * cotangent[of][:, None]

        for part in _parts(hidden.shape[0], rows):
            own = after(hidden[part], parts)
            toward = sliced(slopes, own, part)
            _unused, (gradient,) = mx.vjp(lambda h: head(h).astype(mx.float32), [own], [toward])
            parts.append(gradient)
        return mx.concatenate(parts)

    return cast(mx.array, losses(hidden))


def chunk_rows(vocabulary: int) -> int:
    """Rows whose logits are made at once."""
    return max(1, _CHUNK_BYTES // (4 * vocabulary))


def held_bytes(rows: int, vocabulary: int, ahead: int) -> int:
    """What the losses of `rows` rows hold at most, when `ahead` operations are begun at once."""
    chunk = 4 * vocabulary * min(rows, chunk_rows(vocabulary))
    # Logits, their slopes by parts and as one; and the parts that are being worked on.
    return 3 * chunk + ahead * min(chunk, max(4 * vocabulary, _SLICE_BYTES))


def plain_losses(logits: mx.array, targets: mx.array, penalties: Penalties = NONE) -> mx.array:
    """The same of logits [S, V] that exist already, with gradients by MLX."""
    logits = logits.astype(mx.float32)
    total = mx.logsumexp(logits, axis=-1)
    picked = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return _combined(total, picked, logits, penalties)


def after(x: mx.array, done: Sequence[mx.array]) -> mx.array:
    """`x`, to be computed with only when the last of `done` is there.

    Without it MLX would begin with many parts at once and hold what all of them need.
    """
    return mx.depends(x, done[-1]) if done else x


def _parts(count: int, rows: int) -> Iterator[slice]:
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


def _combined(
    total: mx.array, picked: mx.array, logits: mx.array, penalties: Penalties
) -> mx.array:
    loss = total - picked
    if penalties.smoothing:
        loss = loss + penalties.smoothing * (picked - logits.mean(axis=-1))
    if penalties.z:
        loss = loss + penalties.z * total * total
    return loss


def _losses(logits: mx.array, targets: mx.array, penalties: Penalties) -> mx.array:
    picked = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    _, total = _probabilities(logits)
    return _combined(total, picked, logits, penalties)


def _slopes(logits: mx.array, targets: mx.array, penalties: Penalties) -> mx.array:
    """∂loss/∂logits [n, V]."""
    p, total = _probabilities(logits)
    if penalties.z:
        p = p * (1.0 + 2.0 * penalties.z * total[:, None])
    if penalties.smoothing:
        p = p - penalties.smoothing / logits.shape[-1]
    return p.at[mx.arange(targets.size), targets].add(penalties.smoothing - 1.0)


def _probabilities(logits: mx.array) -> tuple[mx.array, mx.array]:
    """Softmax [n, V] and log-sum-exp [n] of float32 logits."""
    if on_gpu():
        total = mx.logsumexp(logits, axis=-1)
        return mx.exp(logits - total[:, None]), total
    top = logits.max(axis=-1, keepdims=True)
    powers = cpu_math.exp(logits - top)
    sums = cpu_math.row_sums(powers)
    return powers / sums, (top + mx.log(sums))[:, 0]
