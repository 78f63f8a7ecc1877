"""Direct preference optimisation (arXiv 2305.18290): pairs, their loss, and the reference.

The reference is the model that training starts from: the same weights with the adapters as they
were at first, so its log-probabilities are taken once, before the first step, and no second
model is kept. (With PiSSA the model without its adapters is not the base: they hold its
principal part.)
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.records import Message, Preference
from forge_cli.models.adapters import load_arrays, save_arrays
from forge_cli.models.backend import mx, nn
from forge_cli.models.chat import tokenise
from forge_cli.models.shared_context import Group, group_rows, token_losses
from forge_cli.train.micro_batches import Batch, as_batch


@dataclass(frozen=True)
class Pair:
    """The chosen and the rejected answer to one prompt, which they share.

    Attributes:
        group: two rows, chosen first.
        reference: float32 [2], their log-probabilities under the reference.
    """

    group: Group
    reference: mx.array


def split_pairs(
    pairs: Sequence[Preference], valid_share: float, seed: int
) -> tuple[list[Preference], list[Preference]]:
    """(training, validation) pairs: by the split that they carry, else by file, drawn by seed.

    Raises:
        ForgeError: one of the two is empty.
    """
    paths = sorted({pair.origin.path for pair in pairs})
    random.Random(f"{seed}/preferences").shuffle(paths)
    drawn = set(paths[: max(1, round(valid_share * len(paths)))])

    def part(pair: Preference) -> str:
        return pair.split or ("valid" if pair.origin.path in drawn else "train")

    train = [pair for pair in pairs if part(pair) == "train"]
    valid = [pair for pair in pairs if part(pair) == "valid"]
    if not train or not valid:
        raise ForgeError(
            f"{len(train)} training and {len(valid)} validation pairs from {len(paths)} file(s): "
            "both are needed",
            "make pairs of more files: forge raft chunks.jsonl --preferences pairs.jsonl",
        )
    return train, valid


def make_pairs(pairs: Sequence[Preference], tokenizer: Any, *, max_tokens: int) -> list[Group]:
    """Two rows for each pair.

    Raises:
        ForgeError: one is longer than `max_tokens` (its pair is named).
    """
    groups = []
    for number, pair in enumerate(pairs):
        rows = [
            tokenise(tokenizer, [*pair.messages, Message(role="assistant", content=answer)])
            for answer in (pair.chosen, pair.rejected)
        ]
        longest = max(len(row.ids) for row in rows)
        if longest > max_tokens:
            raise ForgeError(
                f"{_name(pair, number)}: {longest} tokens, more than {max_tokens}",
                "raise max_tokens, or mine with smaller max_chars",
            )
        groups.append(group_rows(rows))
    return groups


def log_probabilities(model: nn.Module, group: Group) -> mx.array:
    """Of each row's answer: the sum over its tokens, float32 [rows], in nats."""
    sums = mx.zeros(len(group.counts))
    return sums.at[group.rows].add(-token_losses(model, group))


def with_reference(
    model: nn.Module,
    groups: Sequence[Group],
    pairs: Sequence[Preference],
    cache: Path,
    reporter: Reporter,
) -> list[Batch]:
    """Batches of one pair each; the reference is read from `cache`, or computed into it.

    Args:
        model: as training starts; it must not have been trained yet.
    """
    name = hashlib.sha256("\n".join(p.model_dump_json() for p in pairs).encode()).hexdigest()
    known = load_arrays(cache).get(name) if cache.exists() else None
    if known is None:
        found = []
        with reporter.task("reference", len(groups)) as task:
            for group in groups:
                found.append(log_probabilities(model, group))
                mx.eval(found[-1])
                task.advance()
        known = mx.stack(found)
        others = load_arrays(cache) if cache.exists() else {}
        save_arrays(cache, {**others, name: known})
    batches = []
    for number, (group, pair) in enumerate(zip(groups, pairs, strict=True)):
        plain = as_batch(group, [_name(pair, number)])
        data = Pair(group, known[number])
        batches.append(Batch(data, plain.ids, plain.tokens, plain.supervised, plain.length))
    return batches


def pair_loss(model: nn.Module, pair: Pair, beta: float) -> tuple[mx.array, int]:
    """−log σ(β·margin) (eq. 7), where the margin is how much more than the reference the model
    prefers the chosen answer; and the number of pairs, one.
    """
    gained = log_probabilities(model, pair.group) - pair.reference
    margin = beta * (gained[0] - gained[1])
    return mx.logaddexp(mx.array(0.0), -margin), 1


def _name(pair: Preference, number: int) -> str:
    return f"pair {number + 1} ({pair.origin.path or pair.origin.chunk})"
