"""One optimiser step: gradients of its batches added up, checked, clipped, applied."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.models.backend import mx, nn
from forge_cli.train.distributed import ALONE, World, deal
from forge_cli.train.micro_batches import Batch, Loss, split_batch

# (batch, step, number of the batch in the step) → what surrounds its forward pass.
Around = Callable[[Batch, int, int], AbstractContextManager[None]]
_SHOWN_IDS = 8


def nothing(batch: Batch, step: int, number: int) -> AbstractContextManager[None]:
    """Nothing surrounds the forward pass."""
    return nullcontext()


@dataclass(frozen=True)
class Partial:
    """What a step has added up over the first `done` of its batches.

    Attributes:
        loss, count: sums of the losses and of the tokens that they are of.
        gradients: sums by name of the array, float32 (none before the first batch).
    """

    done: int = 0
    loss: float = 0.0
    count: float = 0.0
    tokens: int = 0
    supervised: int = 0
    seconds: float = 0.0
    gradients: dict[str, mx.array] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """What an optimiser step came to.

    Attributes:
        loss: sum of losses over sum of tokens, in nats.
        tokens: that ran through the model. supervised_tokens: that carry loss.
        peak_bytes: most memory in use so far. step_bytes: in this step.
        largest_tokens, largest_rows: of the largest pass through the model.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    supervised_tokens: int
    seconds: float
    peak_bytes: int
    step_bytes: int
    largest_tokens: int
    largest_rows: int


class Stepper:
    """Takes optimiser steps. `partial` is what an interrupted one has done so far.

    Attributes:
        updating: set before an update and cleared by the caller once it has counted the
            step: in between, model, optimiser and count do not belong together.
        max_tokens: a batch with more is run in parts (0: none is).
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimiser: Any,
        *,
        clip: float,
        split: Callable[[Batch, int], list[Batch]] = split_batch,
        around: Around = nothing,
        world: World = ALONE,
    ) -> None:
        self.model, self.optimiser, self.clip = model, optimiser, clip
        self.split, self.around, self.world = split, around, world
        self.partial = Partial()
        self.updating = False
        self.max_tokens = 0
        self.peak_bytes = 0
        self._gradients = nn.value_and_grad(model, _with_count(loss))
        self._largest = (0, 0)

    def step(self, batches: Sequence[Batch], number: int, rate: float) -> Step:
        """Train on `batches` as one step, going on from `partial`.

        Each rank runs its share of them; the sums are over all.

        Args:
            number: of the step, counted from 0.
            rate: its learning rate.

        Raises:
            ForgeError: a loss or a gradient is not a number, or a batch has no supervised
                token; its rows are named and nothing is changed.
        """
        self.note_peak()
        mx.reset_peak_memory()
        self._largest = (0, 0)
        self.model.train()
        share = deal([batch.tokens for batch in batches], self.world.size)[self.world.rank]
        for index in share[self.partial.done :]:
            self.world.check()
            self._add(batches[index], number, index)
        self.partial = self._over_all_ranks()
        started = time.perf_counter()
        norm = self._update(batches, number, rate)
        done, self.partial = self.partial, Partial()
        return Step(
            step=number + 1,
            loss=done.loss / done.count,
            learning_rate=rate,
            gradient_norm=norm,
            tokens=done.tokens,
            supervised_tokens=done.supervised,
            seconds=done.seconds + time.perf_counter() - started,
            step_bytes=mx.get_peak_memory(),
            peak_bytes=self.note_peak(),
            largest_tokens=self._largest[0],
            largest_rows=self._largest[1],
        )

    def note_peak(self) -> int:
        """Most bytes that were in use since the first step."""
        self.peak_bytes = max(self.peak_bytes, mx.get_peak_memory())
        return self.peak_bytes

    def _over_all_ranks(self) -> Partial:
        """What all ranks have added up, the same on each."""
        from mlx.utils import tree_flatten

        own, world = self.partial, self.world
        if world.size == 1:
            return own
        told = [own.done, own.loss, own.count, own.tokens, own.supervised, own.seconds]
        *sums, seconds = zip(*world.gather(told), strict=True)
        done, loss, count, tokens, supervised = map(sum, sums)
        trained = tree_flatten(self.model.trainable_parameters())
        # A rank that had no batch adds nothing.
        none = {name: mx.zeros(value.shape) for name, value in trained}
        gradients = world.sum(own.gradients or none)
        return Partial(done, loss, count, tokens, supervised, max(seconds), gradients)

    def _add(self, batch: Batch, number: int, index: int) -> None:
        from mlx.utils import tree_flatten

        started, was = time.perf_counter(), self.partial
        loss, count, tokens, gradients = 0.0, 0.0, 0, was.gradients
        for part in self.split(batch, self.max_tokens) if self.max_tokens else [batch]:
            with self.around(batch, number, index):
                (own, of), found = self._gradients(self.model, part.data)
            # Contiguous as a checkpoint's are: sums over another layout round differently.
            flat = {k: mx.contiguous(v.astype(mx.float32)) for k, v in tree_flatten(found)}
            gradients = {k: gradients[k] + v for k, v in flat.items()} if gradients else flat
            mx.eval(own, of, gradients)
            loss, count, tokens = loss + own.item(), count + of.item(), tokens + part.tokens
            self._largest = max(self._largest, (part.tokens, len(part.ids)))
        if not count:
            raise ForgeError(
                f"step {number + 1}: no token of {_named([batch])} carries loss",
                "run forge validate; a row whose answer is cut off has nothing to learn from",
            )
        if not math.isfinite(loss):
            raise _not_a_number(number, "loss", [batch])
        # Assigned at once: an interrupt leaves either the old sums or the new ones.
        self.partial = Partial(
            done=was.done + 1,
            loss=was.loss + loss,
            count=was.count + count,
            tokens=was.tokens + tokens,
            supervised=was.supervised + batch.supervised,
            seconds=was.seconds + time.perf_counter() - started,
            gradients=gradients,
        )

    def _update(self, batches: Sequence[Batch], number: int, rate: float) -> float:
        import mlx.optimizers as optim
        from mlx.utils import tree_flatten, tree_unflatten

        count, sums = self.partial.count, self.partial.gradients
        # In the model's order, whatever order a checkpoint had: the norm is summed in it.
        names = [name for name, _ in tree_flatten(self.model.trainable_parameters())]
        mean = {name: sums[name] / count for name in names}
        mean, norm = optim.clip_grad_norm(mean, self.clip)
        mx.eval(mean, norm)
        if not math.isfinite(norm.item()):
            raise _not_a_number(number, "gradient of the loss", batches)
        self.updating = True
        self.optimiser.learning_rate = rate
        self.optimiser.update(self.model, tree_unflatten(list(mean.items())))
        mx.eval(self.model.trainable_parameters(), self.optimiser.state)
        return float(norm.item())


def _with_count(loss: Loss) -> Callable[[nn.Module, Any], tuple[mx.array, mx.array]]:
    def sums(model: nn.Module, data: Any) -> tuple[mx.array, mx.array]:
        total, count = loss(model, data)
        return total, mx.array(count)

    return sums


def _not_a_number(number: int, what: str, batches: Sequence[Batch]) -> ForgeError:
    return ForgeError(
        f"step {number + 1}: the {what} of {_named(batches)} is not a number",
        "look at these rows, or lower learning_rate; the last checkpoint is kept",
    )


def _named(batches: Sequence[Batch]) -> str:
    ids = [name for batch in batches for name in batch.ids]
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    return f"row{'s' * (len(ids) != 1)} {', '.join(ids[:_SHOWN_IDS])}{more}"
