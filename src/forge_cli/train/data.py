"""What is trained on, by the kind of loss: rows of examples, or pairs of preferences."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import Reporter
from forge_cli.core.records import Example, Preference
from forge_cli.models.backend import nn
from forge_cli.models.head_loss import Penalties
from forge_cli.models.packing import can_pack
from forge_cli.models.spans import SpanWeights
from forge_cli.train.batches import make_groups
from forge_cli.train.dpo import make_pairs, pair_loss, split_pairs, with_reference
from forge_cli.train.memory_plan import Load, load_of
from forge_cli.train.micro_batches import Batch, Loss, as_batches, group_loss, pack_singles


class Data(Protocol):
    """Training and validation data, prepared in two steps.

    Attributes:
        train, valid: the batches, once prepared.
        loss, valid_loss: of a batch's data.
        samples: rows that answers can be generated for.
        loads: what the batches put through the model, once tokenised.
        about: what there is, in words.
    """

    train: list[Batch]
    valid: list[Batch]
    loss: Loss
    valid_loss: Loss
    samples: list[Example]
    loads: list[Load]
    about: str

    def tokenise(self, tokenizer: Any, max_tokens: int) -> None:
        """First: rows become tokens. ForgeError: one is too long."""

    def start(self, model: nn.Module, out: Path, reporter: Reporter) -> None:
        """Second: `model` stands where training starts from."""


def make_data(
    examples: Sequence[Example | Preference],
    loss: str,
    valid_rows: int,
    *,
    span_weights: Sequence[float],
    penalties: Penalties,
    valid_share: float,
    seed: int,
    beta: float,
    packing: bool = False,
) -> Data:
    """The data for `loss`: sft, raft or dpo; see `Rows` and `Pairs`."""
    if loss == "dpo":
        return Pairs(examples, valid_rows, valid_share=valid_share, seed=seed, beta=beta)
    weights = SpanWeights(*span_weights) if loss == "raft" else None
    return Rows(examples, valid_rows, weights, penalties, packing)


class Rows:
    """Examples, for the losses sft and raft.

    Args:
        valid_rows: of the validation rows, the first so many.
        packing: whether training rows that share no context run together.
        weights: of the parts of an answer (None: all tokens count alike).

    Raises:
        ForgeError: no training or no validation rows.
    """

    def __init__(
        self,
        examples: Sequence[Example | Preference],
        valid_rows: int,
        weights: SpanWeights | None,
        penalties: Penalties,
        packing: bool = False,
    ) -> None:
        rows = [example for example in examples if isinstance(example, Example)]
        self._train = [e for e in rows if e.split == "train"]
        self._valid = [e for e in rows if e.split == "valid"][:valid_rows]
        if not self._train or not self._valid:
            raise ForgeError(
                f"{len(self._train)} training and {len(self._valid)} validation rows: both are "
                "needed",
                "run forge validate first; a very small repository has too few files to split",
            )
        self._weights, self._packing = weights, packing
        self.loss: Loss = partial(group_loss, penalties=penalties)
        self.valid_loss: Loss = group_loss
        self.samples = self._valid

    def tokenise(self, tokenizer: Any, max_tokens: int) -> None:
        """See `Data`."""
        train = make_groups(self._train, tokenizer, max_tokens=max_tokens, weights=self._weights)
        valid = make_groups(self._valid, tokenizer, max_tokens=max_tokens)
        self.train = as_batches(train, self._train)
        self.valid = as_batches(valid, self._valid)
        self._packed = pack_singles(self.train, max_tokens) if self._packing else self.train
        batches = (*self.train, *self._packed, *self.valid)
        self.loads = [load_of(batch.data) for batch in batches]
        self.about = f"{len(self._train)} rows in {len(train)} contexts"

    def start(self, model: nn.Module, out: Path, reporter: Reporter) -> None:
        """Rows are packed where the model leaves packed rows apart."""
        if len(self._packed) == len(self.train):
            return
        if not can_pack(model):
            reporter.note("packing: not with this model's positions; rows run one by one")
            return
        reporter.note(f"packing: {len(self.train)} batches become {len(self._packed)}")
        self.train = self._packed


class Pairs:
    """Preferences, for the loss dpo.

    Raises:
        UsageError: there are none. ForgeError: all are of one file.
    """

    def __init__(
        self,
        records: Sequence[Example | Preference],
        valid_rows: int,
        *,
        valid_share: float,
        seed: int,
        beta: float,
    ) -> None:
        pairs = [record for record in records if isinstance(record, Preference)]
        if not pairs:
            raise UsageError(
                "loss dpo: there are no preferences", "forge raft --preferences FILE writes them"
            )
        self._train, valid = split_pairs(pairs, valid_share, seed)
        self._valid = valid[:valid_rows]
        self.loss: Loss = partial(pair_loss, beta=beta)
        self.valid_loss: Loss = self.loss
        self.samples: list[Example] = []

    def tokenise(self, tokenizer: Any, max_tokens: int) -> None:
        """See `Data`."""
        self._groups = [
            make_pairs(pairs, tokenizer, max_tokens=max_tokens)
            for pairs in (self._train, self._valid)
        ]
        self.loads = [load_of(group, whole=True) for part in self._groups for group in part]
        self.about = f"{len(self._train)} pairs"

    def start(self, model: nn.Module, out: Path, reporter: Reporter) -> None:
        """Take the reference's log-probabilities, or those that an earlier start took."""
        cache = out / "reference.safetensors"
        self.train, self.valid = (
            with_reference(model, groups, pairs, cache, reporter)
            for groups, pairs in zip(self._groups, (self._train, self._valid), strict=True)
        )
