"""Loss over rows that share a context, the context computed once.

The rows of one context differ only after its documents. Their common token prefix runs
through the model once and leaves its keys and values; each row's remainder (its branch)
attends to them through the cache interface of mlx-lm, so no model code is touched and
the gradients are those of separate rows. lm_head runs on supervised positions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from forge_cli.core.errors import ForgeError
from forge_cli.models.backend import compute_dtype, mx, nn
from forge_cli.models.head_loss import NONE, Penalties, head_losses, is_frozen, plain_losses

# Below this a prefix is not worth a second pass.
_MIN_PREFIX = 32
_HINT = "choose another --model: Llama, Mistral, Qwen 2 and Qwen 3 types are tested"


@dataclass(frozen=True)
class Row:
    """A tokenised chat.

    Attributes:
        start: from where on the ids are supervised (the answer).
        weights: of each supervised token in the loss (empty: all 1).
    """

    ids: list[int]
    start: int
    weights: Sequence[float] = ()

    @property
    def supervised(self) -> int:
        """Tokens that carry loss."""
        return len(self.ids) - self.start


@dataclass(frozen=True)
class Group:
    """Rows of one context as arrays.

    Attributes:
        prefix: int32 [1, P], the common prefix; P = 0 when it is not shared.
        branches: int32 [n, L], right-padded with 0.
        rows, columns: int32 [S], positions in `branches` whose next token is supervised.
        targets: int32 [S], these next tokens.
        counts: supervised tokens of each row.
        weights: float32 [S], of the targets in the loss; None: all 1.
    """

    prefix: mx.array
    branches: mx.array
    rows: mx.array
    columns: mx.array
    targets: mx.array
    counts: list[int]
    weights: mx.array | None = None

    @property
    def tokens(self) -> int:
        """Tokens that run through the model, padding included."""
        return int(self.prefix.size + self.branches.size)


def group_rows(rows: list[Row]) -> Group:
    """Split rows into their common prefix and their branches.

    At least one token before the first supervised one stays in each branch: it is the
    position that predicts the answer's first token.
    """
    shortest = min(row.start for row in rows) - 1
    first = rows[0].ids
    shared = 0
    while shared < shortest and all(row.ids[shared] == first[shared] for row in rows):
        shared += 1
    if shared < _MIN_PREFIX or len(rows) == 1:
        shared = 0
    width = max(len(row.ids) for row in rows) - shared - 1
    branches, at_row, at_column, targets = [], [], [], []
    for index, row in enumerate(rows):
        inputs = row.ids[shared:-1]
        branches.append(inputs + [0] * (width - len(inputs)))
        for position in range(row.start, len(row.ids)):
            at_row.append(index)
            at_column.append(position - 1 - shared)
            targets.append(row.ids[position])
    return Group(
        prefix=mx.array([first[:shared]], dtype=mx.int32).reshape(1, shared),
        branches=mx.array(branches, dtype=mx.int32),
        rows=mx.array(at_row, dtype=mx.int32),
        columns=mx.array(at_column, dtype=mx.int32),
        targets=mx.array(targets, dtype=mx.int32),
        counts=[row.supervised for row in rows],
        weights=_weights(rows),
    )


def _weights(rows: list[Row]) -> mx.array | None:
    if not any(row.weights for row in rows):
        return None
    return mx.array([w for row in rows for w in row.weights or [1.0] * row.supervised])


class _Recorder:
    """A cache that keeps the keys and values of one layer, as graph nodes."""

    offset = 0

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.keys, self.values = keys, values
        return keys, values

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> Any:
        return _mask(length, self.offset, return_array, window_size)


class _Branches:
    """A cache that puts the recorded prefix, broadcast over the rows, before each branch."""

    def __init__(self, recorded: _Recorder) -> None:
        assert recorded.keys is not None and recorded.values is not None
        self.keys, self.values = recorded.keys, recorded.values
        self.offset = recorded.keys.shape[2]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        def joined(prefix: mx.array, own: mx.array) -> mx.array:
            wide = mx.broadcast_to(prefix, (own.shape[0], *prefix.shape[1:]))
            return mx.concatenate([wide, own], axis=2)

        return joined(self.keys, keys), joined(self.values, values)

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> Any:
        return _mask(length, self.offset, return_array, window_size)


def _mask(length: int, offset: int, as_array: bool, window: int | None) -> mx.array | str:
    """Causal for queries from `offset` on; with a window only its last keys are seen."""
    total = offset + length
    if not as_array and (window is None or window >= total):
        return "causal"
    at, key = mx.arange(offset, total)[:, None], mx.arange(total)[None]
    return at >= key if window is None else (at >= key) & (at < key + window)


def token_losses(model: nn.Module, group: Group, penalties: Penalties = NONE) -> mx.array:
    """Cross-entropy of each supervised token, float32 [S], in nats."""
    layers = len(model.layers)
    if group.prefix.size:
        recorded = [_Recorder() for _ in range(layers)]
        model.model(group.prefix, cache=recorded)
        hidden = model.model(group.branches, cache=[_Branches(r) for r in recorded])
    else:
        hidden = model.model(group.branches, cache=[_Recorder() for _ in range(layers)])
    hidden = hidden[group.rows, group.columns]
    embedding = model.model.embed_tokens
    if not is_frozen(model.lm_head if hasattr(model, "lm_head") else embedding):
        return plain_losses(lm_head(model, hidden), group.targets, penalties)
    return head_losses(
        lambda rows: lm_head(model, rows),
        hidden,
        group.targets,
        embedding.weight.shape[0],
        penalties,
    )


def lm_head(model: nn.Module, hidden: mx.array) -> mx.array:
    """Logits [S, V] of final hidden states [S, D]."""
    if hasattr(model, "lm_head"):
        return model.lm_head(hidden)
    return model.model.embed_tokens.as_linear(hidden)


def check_model(model: nn.Module, name: str) -> None:
    """Hold the shared-context losses of two short rows against the model's own logits.

    Recurrent layers, scaled or capped logits and models without an inner `model` would
    otherwise fail later, or train on another function without a word.

    Raises:
        ForgeError: the losses differ, or the model cannot be run this way.
    """
    prefix = [i % 90 + 5 for i in range(_MIN_PREFIX + 8)]
    rows = [Row([*prefix, 7 + i, 11, 13 + i, 17], len(prefix) + 2) for i in range(2)]
    try:
        ours = np.array(token_losses(model, group_rows(rows)))
    except (AttributeError, TypeError, ValueError, KeyError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ForgeError(f"{name}: Forge cannot train this architecture: {reason}", _HINT) from None
    logits = model(mx.array([row.ids[:-1] for row in rows])).astype(mx.float32)
    theirs = np.array(
        nn.losses.cross_entropy(logits, mx.array([row.ids[1:] for row in rows]))[:, -2:]
    ).reshape(-1)
    if not np.isfinite(theirs).all():
        raise ForgeError(
            f"{name}: the model's losses are not numbers", "is a file of its weights damaged?"
        )
    # Half precision rounds logits to about 1/100.
    allowed = 1e-3 if compute_dtype() == mx.float32 else 0.1
    if not np.allclose(ours, theirs, rtol=0, atol=allowed):
        raise ForgeError(
            f"{name}: Forge cannot train this architecture: its losses come out as "
            f"{ours.mean():.3f}, the model's own are {theirs.mean():.3f}",
            _HINT,
        )
