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
from mlx.utils import tree_flatten

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.models import attention
from forge_cli.models.backend import compute_dtype, mx, nn
from forge_cli.models.head_loss import NONE, Penalties, head_losses, plain_losses
from forge_cli.models.row_losses import row_losses, run_apart, runs_apart

# Below this a prefix is not worth a second pass.
_MIN_PREFIX = 32
# What a pass through the model costs beside its tokens, in tokens: to read the weights.
_PASS = 48
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
        of: the rows.
        prefix: int32 [1, P], the common prefix; P = 0 when it is not shared.
        branches: what follows it, int32 [n, L] each, right-padded with 0: rows of like lengths
            together.
        positions: int32 [S], places in the branches, laid flat one after another, whose next
            token is supervised.
        rows: int32 [S], the row that each is of.
        targets: int32 [S], these next tokens, row by row.
        counts: supervised tokens of each row.
        weights: float32 [S], of the targets in the loss; None: all 1.
        packed: lengths of rows that stand one after another in the one row of the one branch
            (see `models.packing`); (): each has a row of its own.
    """

    of: tuple[Row, ...]
    prefix: mx.array
    branches: tuple[mx.array, ...]
    positions: mx.array
    rows: mx.array
    targets: mx.array
    counts: list[int]
    weights: mx.array | None = None
    packed: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens that run through the model, padding included."""
        return int(self.prefix.size) + sum(branch.size for branch in self.branches)


def group_rows(rows: Sequence[Row]) -> Group:
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
    branches, begins, begin = [], [0] * len(rows), 0
    for bucket in buckets([len(row.ids) - 1 - shared for row in rows]):
        width = max(len(rows[index].ids) for index in bucket) - 1 - shared
        for number, index in enumerate(bucket):
            begins[index] = begin + number * width
        inputs = [rows[index].ids[shared:-1] for index in bucket]
        padded = [own + [0] * (width - len(own)) for own in inputs]
        branches.append(mx.array(padded, dtype=mx.int32))
        begin += len(bucket) * width
    prefix = mx.array([first[:shared]], dtype=mx.int32).reshape(1, shared)
    return as_group(rows, prefix, branches, [begin - shared for begin in begins])


def as_group(
    rows: Sequence[Row],
    prefix: mx.array,
    branches: Sequence[mx.array],
    begins: Sequence[int],
    packed: tuple[int, ...] = (),
) -> Group:
    """The group whose row i has its token 0 at `begins[i]` of the branches laid flat."""
    of = [(i, at) for i, row in enumerate(rows) for at in range(row.start, len(row.ids))]
    weights = None
    if any(row.weights for row in rows):
        weights = mx.array([w for row in rows for w in row.weights or [1.0] * row.supervised])
    return Group(
        of=tuple(rows),
        prefix=prefix,
        branches=tuple(branches),
        positions=mx.array([begins[i] + at - 1 for i, at in of], dtype=mx.int32),
        rows=mx.array([i for i, _ in of], dtype=mx.int32),
        targets=mx.array([rows[i].ids[at] for i, at in of], dtype=mx.int32),
        counts=[row.supervised for row in rows],
        weights=weights,
        packed=packed,
    )


def buckets(lengths: Sequence[int]) -> list[list[int]]:
    """Which rows are padded to one length: the cheapest cut of them in order of length.

    A bucket costs its rows times its longest, and `_PASS` for going through the model once more.
    """
    by_length = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    best: list[tuple[int, list[list[int]]]] = [(0, [])]
    for end in range(1, len(by_length) + 1):
        widest = lengths[by_length[end - 1]]
        best.append(
            min(
                (
                    (
                        best[cut][0] + (end - cut) * widest + _PASS,
                        [*best[cut][1], by_length[cut:end]],
                    )
                    for cut in range(end)
                ),
                key=lambda found: found[0],
            )
        )
    return best[-1][1]


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


class PackedRows:
    """A cache that keeps nothing, and hides packed rows from one another.

    Their positions run on, which rotary embeddings do not notice: they see distances alone
    (arXiv 2104.09864, section 3.2).
    """

    offset = 0

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.lengths = lengths

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        return keys, values

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> Any:
        narrow = window_size is not None and window_size < max(self.lengths)
        packed = attention.Packed(self.lengths)
        if narrow or return_array or not attention.installed():
            return packed.visible(window_size if narrow else None)
        return packed


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
    if runs_apart(model):
        return row_losses(model, group, penalties)
    hidden = supervised_hidden(model, group)
    if not _head_is_frozen(model):
        return plain_losses(lm_head(model, hidden), group.targets, penalties)
    vocabulary = model.model.embed_tokens.weight.shape[0]
    return head_losses(
        lambda rows: lm_head(model, rows), hidden, group.targets, vocabulary, penalties
    )


def supervised_hidden(model: nn.Module, group: Group) -> mx.array:
    """Final hidden states [S, D] of the positions whose next token is supervised."""
    layers = len(model.layers)
    if group.prefix.size:
        recorded = [_Recorder() for _ in range(layers)]
        model.model(group.prefix, cache=recorded)
    parts = []
    for branch in group.branches:
        if group.packed:
            cache: list[Any] = [PackedRows(group.packed)] * layers
        elif group.prefix.size:
            cache = [_Branches(r) for r in recorded]
        else:
            cache = [_Recorder() for _ in range(layers)]
        found = model.model(branch, cache=cache)
        parts.append(found.reshape(-1, found.shape[-1]))
    return mx.concatenate(parts)[group.positions]


def lm_head(model: nn.Module, hidden: mx.array) -> mx.array:
    """Logits [S, V] of final hidden states [S, D]: all that the model does after its blocks.

    The model's own code runs with its blocks' result put in, so scales and caps of logits are
    those that the family has.
    """
    logits: mx.array = type(model).__call__(_WithResult(model, hidden), hidden)
    return logits


class _WithResult:
    """A model whose inner one returns a given result."""

    def __init__(self, model: nn.Module, hidden: mx.array) -> None:
        self._model = model
        self.model = _Result(model.model, hidden)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _Result:
    def __init__(self, inner: nn.Module, hidden: mx.array) -> None:
        self._inner, self._hidden = inner, hidden

    def __call__(self, *_: Any, **__: Any) -> mx.array:
        return self._hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _head_is_frozen(model: nn.Module) -> bool:
    trained = dict(model.trainable_parameters())
    inner = {name for name, found in trained.pop("model", {}).items() if tree_flatten(found)}
    return inner <= {"layers"} and not tree_flatten(trained)


def check_model(model: nn.Module, name: str, reporter: Reporter = SILENT) -> None:
    """Hold the shared-context losses of two short rows against the model's own logits.

    Where they differ, or cannot be had (recurrent layers, no inner `model`), rows of this model
    run apart from now on, and that is said.

    Raises:
        ForgeError: the model gives no logits of its own, or none that are numbers.
    """
    prefix = [i % 90 + 5 for i in range(_MIN_PREFIX + 8)]
    rows = [Row([*prefix, 7 + i, 11, 13 + i, 17], len(prefix) + 2) for i in range(2)]
    try:
        theirs = np.array(row_losses(model, group_rows(rows), NONE))
    except (AttributeError, TypeError, ValueError, KeyError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ForgeError(f"{name}: Forge cannot train this architecture: {reason}", _HINT) from None
    if not np.isfinite(theirs).all():
        raise ForgeError(
            f"{name}: the model's losses are not numbers", "is a file of its weights damaged?"
        )
    if why := _cannot_share(model, rows, theirs):
        run_apart(model)
        reporter.note(
            f"{name}: rows of one context cannot share it in this architecture ({why}): each runs "
            "by itself, which takes longer"
        )


def _cannot_share(model: nn.Module, rows: Sequence[Row], theirs: np.ndarray) -> str:
    """Why the shared-context losses of rows are not the model's own; "" where they are."""
    try:
        ours = np.array(token_losses(model, group_rows(rows)))
    except (AttributeError, TypeError, ValueError, KeyError, IndexError) as error:
        return str(error).splitlines()[0]
    # Half precision rounds logits to about 1/100.
    allowed = 1e-3 if compute_dtype() == mx.float32 else 0.1
    if np.allclose(ours, theirs, rtol=0, atol=allowed):
        return ""
    return f"its losses would come out as {ours.mean():.3f} for {theirs.mean():.3f}"
