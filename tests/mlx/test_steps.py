"""An optimiser step: sums over sums, whatever the batches are cut into; guards that name rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

from forge_cli.core.errors import ForgeError
from forge_cli.models.backend import mx, nn
from forge_cli.models.shared_context import Group, group_rows, token_losses
from forge_cli.train.callbacks import Callback, Run
from forge_cli.train.loop import fit
from forge_cli.train.micro_batches import Batch, as_batch, group_loss, plan_steps, split_batch
from forge_cli.train.step import Step, Stepper
from tiny_loop import batch, loop_of, rows, same_arrays, train_tiny, tuned_model


class Keep:
    """In place of an optimiser: keeps the gradient it is given."""

    learning_rate = 0.0
    state: Any = ()

    def update(self, model: nn.Module, gradients: Any) -> None:
        self.gradients = {name: np.array(value) for name, value in tree_flatten(gradients)}


def gradient(
    model: nn.Module, batches: list[Batch], max_tokens: int = 0
) -> tuple[Step, dict[str, np.ndarray]]:
    kept = Keep()
    stepper = Stepper(model, group_loss, kept, clip=1e9)
    stepper.max_tokens = max_tokens
    return stepper.step(batches, 0, 0.1), kept.gradients


def distance(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> float:
    """Largest difference, relative to the largest entry."""
    assert set(one) == set(two)
    most = max(np.abs(value).max() for value in two.values())
    return float(max(np.abs(one[name] - two[name]).max() for name in one) / most)


def test_accumulated_batches_are_one_big_batch() -> None:
    model, whole = tuned_model(), rows(5)
    big = as_batch(group_rows(whole), list("abcde"))
    # Rows of very different lengths: 5, 9 and 13 tokens, then 17 and 21.
    parts = [
        as_batch(group_rows(whole[:3]), list("abc")),
        as_batch(group_rows(whole[3:]), list("de")),
    ]
    step, want = gradient(model, [big])
    added, got = gradient(model, parts)
    assert distance(got, want) < 1e-5
    assert added.loss == pytest.approx(step.loss, rel=1e-6)
    assert added.supervised_tokens == step.supervised_tokens == 65
    # What other trainers do, a mean of the batches' means, is another function.
    means = [gradient(model, [part])[1] for part in parts]
    assert distance({k: (means[0][k] + means[1][k]) / 2 for k in want}, want) > 1e-2


def test_a_batch_cut_into_parts_is_the_same_batch() -> None:
    model, big = tuned_model(), batch(5, answer=40)
    step, want = gradient(model, [big])
    assert (step.largest_tokens, step.largest_rows) == (big.tokens, 5)
    for limit, most in ((big.tokens - 1, 3), (1, 1)):
        cut, got = gradient(model, [big], max_tokens=limit)
        assert cut.largest_rows == most
        assert distance(got, want) < 1e-5 and cut.loss == pytest.approx(step.loss, rel=1e-6)
        assert cut.supervised_tokens == step.supervised_tokens


@pytest.mark.parametrize("prefix", [40, 8], ids=["shared", "not shared"])
def test_parts_keep_each_row(prefix: int) -> None:
    big = batch(5, prefix=prefix)
    model = tuned_model()
    want = np.array(token_losses(model, big.data))
    parts = split_batch(big, big.tokens // 3)
    assert len(parts) > 2 and sum((part.ids for part in parts), ()) == big.ids
    assert [n for part in parts for n in part.data.counts] == big.data.counts
    found = np.concatenate([np.array(token_losses(model, part.data)) for part in parts])
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    assert max(part.tokens for part in parts) < big.tokens
    assert split_batch(big, big.tokens) == [big]


def test_the_norm_is_clipped(tmp_path: Path) -> None:
    kept = Keep()
    stepper = Stepper(tuned_model(), group_loss, kept, clip=1e-3)
    step = stepper.step([batch(2)], 0, 0.1)
    norm = np.sqrt(sum((value**2).sum() for value in kept.gradients.values()))
    assert norm == pytest.approx(1e-3, rel=1e-3) and step.gradient_norm > 0.1


def test_an_interrupted_accumulation_goes_on_from_its_partial_sums(tmp_path: Path) -> None:
    plan = [[batch(2, context=3 * n + m) for m in range(3)] for n in range(4)]
    whole, arrays = train_tiny(tmp_path / "whole", plan)

    calls: list[int] = []

    def interrupted(model: nn.Module, group: Group) -> tuple[mx.array, int]:
        calls.append(1)
        if len(calls) == 9:  # validation, 6 batches of two steps, one of the third
            raise KeyboardInterrupt
        return group_loss(model, group)

    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path / "cut", plan, loss=interrupted)
    assert (tmp_path / "cut/checkpoints/step-00000002.safetensors").exists()

    counted: list[int] = []

    def count(model: nn.Module, group: Group) -> tuple[mx.array, int]:
        counted.append(1)
        return group_loss(model, group)

    again, resumed = train_tiny(tmp_path / "cut", plan, loss=count)
    assert again == whole and same_arrays(resumed, arrays)
    assert len(counted) == 2 + 3 + 1, "the batch that was done is not done again"


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    def dropped(model: nn.Module, group: Group) -> tuple[mx.array, int]:
        losses = token_losses(model, group)
        keep = mx.random.bernoulli(0.5, losses.shape) if model.training else mx.ones(losses.shape)
        return (losses * keep).sum(), losses.size

    class Draws(Callback):
        """Draws random numbers in validation, which training must not notice."""

        def on_validation(self, run: Run, validation: Any) -> None:
            mx.eval(mx.random.normal((len(validation.history),)))

    plan = [[batch(2, context=n)] for n in range(4)]

    def train(name: str, *callbacks: Callback) -> dict[str, mx.array]:
        settings = {"loss": dropped, "valid_every": 2, "keep_last": 9, "seed": 5}
        return train_tiny(tmp_path / name, plan, *callbacks, **settings)[1]

    arrays = train("whole")
    assert same_arrays(train("drawn", Draws()), arrays)
    (tmp_path / "drawn/checkpoints/step-00000004.safetensors").unlink()
    assert same_arrays(train("drawn"), arrays)
    other = train_tiny(tmp_path / "other", plan, loss=dropped, seed=6)[1]
    assert not same_arrays(other, arrays)


def test_a_loss_that_is_no_number_names_the_rows_of_its_batch(tmp_path: Path) -> None:
    poisoned = batch(2, context=5)

    def broken(model: nn.Module, group: Group) -> tuple[mx.array, int]:
        total, count = group_loss(model, group)
        return total * (float("nan") if group is poisoned.data else 1.0), count

    plan = [[batch(2, context=1), batch(2, context=2)], [batch(2, context=4), poisoned]]
    with pytest.raises(ForgeError, match=r"step 2: the loss of rows 5-0, 5-1 is not a num") as e:
        fit(loop_of(tmp_path, plan, loss=broken))
    assert "learning_rate" in e.value.hint


def test_a_gradient_that_is_no_number_names_the_rows_of_the_step(tmp_path: Path) -> None:
    def steep(model: nn.Module, group: Group) -> tuple[mx.array, int]:
        total, count = group_loss(model, group)
        # √0 is 0, and its slope is not a number once it is multiplied by 0.
        return total + mx.sqrt(total * 0), count

    loop = loop_of(tmp_path, [[batch(9, context=1), batch(1, context=2)]], loss=steep)
    before = {k: mx.array(v) for k, v in tree_flatten(loop.model.trainable_parameters())}
    with pytest.raises(ForgeError, match=r"gradient of the loss of rows 1-0, .* 1-7 and 2 more"):
        fit(loop)
    assert same_arrays(dict(tree_flatten(loop.model.trainable_parameters())), before)


def test_a_batch_without_supervised_tokens_is_named(tmp_path: Path) -> None:
    def nothing(model: nn.Module, group: Group) -> tuple[mx.array, int]:
        return (group_loss(model, group)[0] * 0, 0) if model.training else group_loss(model, group)

    with pytest.raises(ForgeError, match="step 1: no token of row 3-0 carries loss"):
        fit(loop_of(tmp_path, [[batch(1, context=3)]], loss=nothing))


def test_a_plan_drops_no_tail() -> None:
    batches = [batch(1, context=n) for n in range(5)]
    plan = plan_steps(batches, steps=None, epochs=1.0, accumulate=2, seed=1)
    assert [len(step) for step in plan] == [2, 2, 1]
    assert {b.ids for step in plan for b in step} == {b.ids for b in batches}
    assert plan == plan_steps(batches, steps=None, epochs=1.0, accumulate=2, seed=1)
    assert [len(s) for s in plan_steps(batches, steps=3, epochs=9, accumulate=2, seed=1)] == [2] * 3
    assert len(plan_steps(batches, steps=None, epochs=2.0, accumulate=1, seed=1)) == 10


def test_other_rows_do_not_take_up_a_run(tmp_path: Path) -> None:
    plan = [[batch(2, context=n)] for n in range(4)]
    train_tiny(tmp_path, plan)
    with pytest.raises(ForgeError, match="was trained on other rows, or on these in another order"):
        train_tiny(tmp_path, [plan[1], plan[0], *plan[2:]])
    more = [*plan, [batch(2, context=7)]]
    assert train_tiny(tmp_path, more)[0].step == 5, "a longer plan that starts alike goes on"


def test_another_optimiser_does_not_take_up_a_run(tmp_path: Path) -> None:
    plan = [[batch(2, context=n)] for n in range(2)]
    train_tiny(tmp_path, plan)
    with pytest.raises(ForgeError, match="was trained with another optimiser"):
        train_tiny(tmp_path, plan, optimiser="lion")


def test_a_callback_sees_each_step_once(tmp_path: Path) -> None:
    class See(Callback):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def on_start(self, run: Run) -> None:
            self.seen.append(f"start of {run.steps}")

        def on_step(self, run: Run, step: Step) -> None:
            assert run.progress.step == step.step
            self.seen.append(f"step {step.step}")

        def on_validation(self, run: Run, validation: Any) -> None:
            self.seen.append(f"valid {validation.step}")

        def on_checkpoint(self, run: Run, path: Path) -> None:
            assert path.exists()
            self.seen.append(path.name)

        def on_end(self, run: Run) -> None:
            self.seen.append(f"ended {run.ended}")

    see = See()
    train_tiny(tmp_path, [[batch(1, context=n)] for n in range(3)], see, save_every=2)
    names = {n: f"step-{n:08}.safetensors" for n in range(4)}
    assert see.seen == [
        "start of 3", "valid 0", names[0], "step 1", "step 2", names[2], "step 3", "valid 3",
        names[3], "ended True",
    ]  # fmt: skip
