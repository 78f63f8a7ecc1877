"""How likely given continuations are, and whether the model would have written them itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from forge_cli.models.backend import mx, nn
from forge_cli.models.head_loss import chunk_rows
from forge_cli.models.load import Loaded
from forge_cli.models.packing import fill_packs
from forge_cli.models.prefixes import group_by_prefix
from forge_cli.models.row_losses import runs_apart
from forge_cli.models.shared_context import Group, Row, group_rows, lm_head, supervised_hidden

# Rows that share nothing run together up to so many tokens: a short one alone leaves the
# processor waiting for the weights.
_TOGETHER = 1024


def likelihoods(
    loaded: Loaded, rows: Sequence[Row], done: Callable[[int, float, bool], None]
) -> None:
    """Judge the supervised tokens of each row; what rows share at their beginning runs once.

    Args:
        rows: with at least one token before the first supervised one.
        done: gets a row's index, the sum of its tokens' log-probabilities in nats, and whether
            each is the likeliest; as soon as they are known, in any order.
    """
    asked = [index for index, row in enumerate(rows) if row.supervised]
    for index, row in enumerate(rows):
        if not row.supervised:
            done(index, 0.0, True)
    for indices in _together([rows[index] for index in asked]):
        group = group_rows([rows[asked[i]] for i in indices])
        chances, likeliest = _judge(loaded.model, group)
        start = 0
        for i, count in zip(indices, group.counts, strict=True):
            own = slice(start, start + count)
            done(asked[i], float(chances[own].sum()), bool(likeliest[own].all()))
            start += count
        mx.clear_cache()


def _together(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Indices of rows that run together: those of one context, and those that are alone."""
    alone = []
    for group in group_by_prefix([row.ids[: row.start] for row in rows]):
        if len(group) > 1:
            yield group
        else:
            alone += group
    # Of like lengths, so that little is padded.
    alone.sort(key=lambda index: len(rows[index].ids))
    for pack in fill_packs([len(rows[index].ids) for index in alone], _TOGETHER):
        yield [alone[place] for place in pack]


def _judge(model: nn.Module, group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of each supervised token, float64 [S], and whether none is likelier."""
    if runs_apart(model):
        found = []
        for row in group.of:
            logits = model(mx.array([row.ids[:-1]]))[0, row.start - 1 :]
            found.append(_of_logits(logits, mx.array(row.ids[row.start :])))
    else:
        hidden = supervised_hidden(model, group)
        # Logits of a large vocabulary: for some positions at a time.
        step = chunk_rows(model.model.embed_tokens.weight.shape[0])
        found = [
            _of_logits(lm_head(model, hidden[at : at + step]), group.targets[at : at + step])
            for at in range(0, hidden.shape[0], step)
        ]
    chances, likeliest = zip(*found, strict=True)
    return np.concatenate(chances), np.concatenate(likeliest)


def _of_logits(logits: mx.array, targets: mx.array) -> tuple[np.ndarray, np.ndarray]:
    logits = logits.astype(mx.float32)
    picked = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    chances = picked - mx.logsumexp(logits, axis=-1)
    likeliest = mx.argmax(logits, axis=-1) == targets
    mx.eval(chances, likeliest)
    return np.array(chances).astype(np.float64), np.array(likeliest)
