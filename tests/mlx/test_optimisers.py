"""Optimisers take the step their paper says; schedules go where their name says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from forge_cli.core.config import Settings
from forge_cli.core.errors import UsageError
from forge_cli.models.adapters import adapter_arrays
from forge_cli.models.backend import mx, nn
from forge_cli.train.compiled import wants_compiled
from forge_cli.train.optimisers import OPTIMISERS, make_optimiser
from forge_cli.train.schedules import Kind, Schedule, suited_rate
from tiny_loop import batch, same_arrays, train_tiny, tuned_model


class Pair(nn.Module):
    """A matrix and a vector, as DoRA has them."""

    def __init__(self) -> None:
        super().__init__()
        self.A = mx.random.normal((4, 48), key=mx.random.key(0))
        self.magnitude = mx.random.normal((16,), key=mx.random.key(1))


def after_one_step(name: str, *, weight_decay: float = 0.0) -> tuple[dict, dict, dict]:
    """Arrays before and after a step of rate 0.01, and the gradients."""
    model = Pair()
    before = {k: np.array(v) for k, v in model.parameters().items()}
    gradients = {
        "A": mx.random.normal((4, 48), key=mx.random.key(2)) * mx.array([[8.0], [4], [2], [1]]),
        "magnitude": mx.random.normal((16,), key=mx.random.key(3)),
    }
    optimiser = make_optimiser(name, model, weight_decay=weight_decay)
    optimiser.learning_rate = 0.01
    optimiser.update(model, gradients)
    after = {k: np.array(v) for k, v in model.parameters().items()}
    return before, after, {k: np.array(v) for k, v in gradients.items()}


def test_adamw_steps_by_the_sign_at_first_and_decays_apart_from_it() -> None:
    before, after, gradients = after_one_step("adamw", weight_decay=0.5)
    for name in before:  # bias-corrected m/√v of one gradient is its sign
        want = before[name] * (1 - 0.01 * 0.5) - 0.01 * np.sign(gradients[name])
        np.testing.assert_allclose(after[name], want, atol=1e-5)


def test_lion_steps_by_the_sign() -> None:
    before, after, gradients = after_one_step("lion")
    for name in before:
        want = before[name] - 0.01 * np.sign(gradients[name])
        np.testing.assert_allclose(after[name], want, atol=1e-6)


def test_muon_makes_the_step_of_a_matrix_orthogonal_and_leaves_vectors_to_adamw() -> None:
    before, after, gradients = after_one_step("muon")
    singular = np.linalg.svd((before["A"] - after["A"]) / 0.01, compute_uv=False)
    assert singular.shape == (4,) and (singular > 0.6).all() and (singular < 1.3).all()
    plain = np.linalg.svd(gradients["A"], compute_uv=False)
    assert plain.max() / plain.min() > 5, "the gradient itself is not orthogonal"
    want = before["magnitude"] - 0.01 * np.sign(gradients["magnitude"])
    np.testing.assert_allclose(after["magnitude"], want, atol=1e-5)


def test_adafactor_keeps_rows_and_columns_and_obeys_the_rate() -> None:
    model = Pair()
    optimiser = make_optimiser("adafactor", model, weight_decay=0.0)
    held = {name: value.size for name, value in tree_flatten(optimiser.state["A"])}
    assert sum(held.values()) == 4 + 48
    adamw = make_optimiser("adamw", model, weight_decay=0.0)
    assert sum(value.size for _, value in tree_flatten(adamw.state["A"])) == 2 * 4 * 48
    before, after, _ = after_one_step("adafactor")
    step = np.sqrt(np.mean((before["A"] - after["A"]) ** 2))
    assert 0.005 < step <= 0.0101, "update clipped at RMS 1, times the schedule's rate"


def test_an_unknown_optimiser_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="optimiser sgd: unknown") as error:
        make_optimiser("sgd", Pair(), weight_decay=0.0)
    assert error.value.hint == "known: adamw, adafactor, lion, muon"


@pytest.mark.parametrize("name", OPTIMISERS)
def test_each_learns_and_resumes_bit_for_bit(tmp_path: Path, name: str) -> None:
    plan = [[batch(2, context=n % 3)] for n in range(8)]
    settings = {"optimiser": name, "valid": [batch(2, context=1)], "valid_every": 2}
    whole, arrays = train_tiny(tmp_path / "whole", plan, **settings)
    losses = [loss for _, loss in whole.history]
    assert losses[-1] < losses[0] - 0.1
    # Killed after step 4: its later checkpoints never came to be.
    train_tiny(tmp_path / "killed", plan, **settings, keep_last=9)
    for file in sorted((tmp_path / "killed/checkpoints").iterdir())[3:]:
        file.unlink()
    again, resumed = train_tiny(tmp_path / "killed", plan, **settings)
    assert again == whole and same_arrays(resumed, arrays)
    last = "checkpoints/step-00000008.safetensors"
    assert (tmp_path / "killed" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


@pytest.mark.skipif(not shutil.which("g++"), reason="MLX compiles by g++ on the CPU")
@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_compiled_update_is_traced_once_and_takes_the_same_steps(
    name: str, dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[int] = []
    plain = optim.AdamW.apply_single
    monkeypatch.setattr(optim.AdamW, "apply_single", lambda *args: traced.append(1) or plain(*args))

    def arrays_after(*, compiled: bool) -> dict[str, np.ndarray]:
        model = Pair()
        model.update(tree_map(lambda p: p.astype(dtype), model.parameters()))
        optimiser = make_optimiser(name, model, weight_decay=0.1, compiled=compiled)
        for step in range(4):
            optimiser.learning_rate = 0.01 * (step + 1)
            sizes = {"A": (4, 48), "magnitude": (16,)}
            gradients = {
                k: mx.random.normal(size, key=mx.random.key(step)) for k, size in sizes.items()
            }
            optimiser.update(model, gradients)
            mx.eval(model.parameters(), optimiser.state)
        return {k: np.array(v.astype(mx.float32)) for k, v in model.parameters().items()}

    want, calls = arrays_after(compiled=False), len(traced)
    traced.clear()
    got = arrays_after(compiled=True)
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-5, atol=1e-6)
    assert len(traced) <= calls / 2, "traced at the first step; Muon's once more at the second"


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="needs g\\+\\+"):
        wants_compiled("on")
    assert not wants_compiled("auto") and not wants_compiled("off")


def half(model: nn.Module) -> nn.Module:
    """The model with adapters in bfloat16, as on a Mac's GPU."""
    arrays = tree_map(lambda p: p.astype(mx.bfloat16), model.trainable_parameters())
    model.update(arrays)
    return model


@pytest.mark.parametrize("name", OPTIMISERS)
def test_small_steps_of_16_bit_adapters_are_not_lost(name: str) -> None:
    def moved(model: nn.Module, optimiser: Any, dtype: mx.Dtype = mx.float32) -> np.ndarray:
        """Where 40 small steps of one and the same gradient lead, all arrays in one."""

        def flat() -> np.ndarray:
            arrays = adapter_arrays(model).values()
            return np.concatenate([np.array(v.astype(mx.float32)).ravel() for v in arrays])

        before = flat()
        gradients = tree_map(lambda p: p.astype(dtype), start.trainable_parameters())
        for _ in range(40):
            optimiser.learning_rate = 2e-4 if name == "muon" else 2e-5
            optimiser.update(model, gradients)
        return flat() - before

    start, exact, ours, lossy = tuned_model(), tuned_model(), half(tuned_model()), tuned_model()
    want = moved(exact, make_optimiser(name, exact, weight_decay=0.0))
    found = moved(ours, make_optimiser(name, ours, weight_decay=0.0))
    assert {array.dtype for array in adapter_arrays(ours).values()} == {mx.bfloat16}
    # How far along the exact way: single arrays are rounded, all together go as far.
    assert found @ want / (want @ want) == pytest.approx(1.0, abs=0.1)
    plain = {"adamw": optim.AdamW, "adafactor": optim.Adafactor, "lion": optim.Lion}.get(name)
    if plain:
        fixed = {"relative_step": False, "scale_parameter": False} if name == "adafactor" else {}
        without = moved(half(lossy), plain(0.0, **fixed), mx.bfloat16)
        off = abs(1 - without @ want / (want @ want))
        assert off > 0.3, "without the copies much of it is lost, or goes too far"


def test_16_bit_adapters_resume_bit_for_bit(tmp_path: Path) -> None:
    plan = [[batch(2, context=n)] for n in range(6)]

    def train(name: str) -> dict[str, mx.array]:
        settings = {"model": half(tuned_model()), "valid_every": 3, "keep_last": 9}
        return train_tiny(tmp_path / name, plan, **settings)[1]

    whole = train("whole")
    assert {array.dtype for array in whole.values()} == {mx.bfloat16}
    train("cut")
    (tmp_path / "cut/checkpoints/step-00000006.safetensors").unlink()
    assert same_arrays(train("cut"), whole)
    files = [tmp_path / name / "checkpoints/step-00000006.safetensors" for name in ("cut", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


def rates(kind: Kind, warmup: float = 0.1, **more: float) -> list[float]:
    return [Schedule(1.0, 100, warmup, kind, **more)(step) for step in range(100)]


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "wsd"])
def test_all_schedules_warm_up_alike(kind: Kind) -> None:
    assert rates(kind)[:11] == pytest.approx([(i + 1) / 10 for i in range(10)] + [1.0])
    assert rates(kind, warmup=0.0)[:2] == pytest.approx([1.0, 1.0], abs=0.02)
    assert Schedule(1.0, 1, 0.05, kind)(0) == 1.0


def test_linear_falls_evenly_to_zero() -> None:
    found = rates("linear")
    assert np.diff(found[10:]) == pytest.approx(-1 / 90)
    assert Schedule(1.0, 100, 0.1, "linear")(100) == pytest.approx(0.0)


def test_constant_stays() -> None:
    assert set(rates("constant")[10:]) == {1.0}


def test_wsd_stays_then_falls_over_the_last_share() -> None:
    found = rates("wsd", decay=0.25)
    assert set(found[10:76]) == {1.0}
    assert np.diff(found[75:]) == pytest.approx(-1 / 25)
    assert set(rates("wsd", decay=0.0)[10:]) == {1.0}
    # A decay that would reach into the warm-up takes what is left.
    assert rates("wsd", decay=1.0)[10:] == pytest.approx(rates("linear")[10:])


def test_the_settings_know_them_all() -> None:
    fields = Settings.model_fields
    assert set(OPTIMISERS) == {"adamw", "adafactor", "lion", "muon"}
    assert (fields["optimiser"].default, fields["schedule"].default) == ("adamw", "cosine")


def test_a_rate_suits_the_start_the_width_and_the_loss() -> None:
    small, large = {"hidden_size": 576}, {"text_config": {"hidden_size": 4096}}
    assert suited_rate(small, "pissa", "sft") == pytest.approx(1e-3)
    assert suited_rate(small, "qpissa", "sft") == pytest.approx(1e-3)
    for init in ("lora", "loftq", "dora"):
        assert suited_rate(small, init, "sft") == pytest.approx(4e-3)
    # 1e-3 · (576/4096)^0.781
    assert suited_rate(large, "pissa", "raft") == pytest.approx(2.16e-4, 0.01)
    assert suited_rate(small, "pissa", "dpo") == pytest.approx(1e-4)
