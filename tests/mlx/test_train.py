"""Training a tiny model: it learns, it writes what it did, and it makes the same model again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forge_cli import train
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.records import Example, Message
from forge_cli.models.adapters import (
    AdapterConfig,
    load_arrays,
    load_initial,
    load_tuned,
)
from forge_cli.models.backend import mx
from forge_cli.models.load import load_dense
from forge_cli.train.batches import make_groups, order
from forge_cli.train.checkpoint import checkpoints, path_of
from forge_cli.train.loop import Schedule, mean_loss
from forge_cli.train.micro_batches import suited_epochs
from tiny_train import example, examples, logits, save_model

SETTINGS: dict[str, Any] = {
    "rank": 4, "steps": 12, "learning_rate": 5e-3, "valid_every": 4, "layers": 0,
    "targets": ("q_proj", "v_proj", "down_proj"),
}  # fmt: skip
IDS = list(range(5, 60))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("model")))


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("init", ["pissa", "lora"])
def test_loss_falls_and_each_step_is_recorded(tmp_path: Path, model: str, init: str) -> None:
    result = train.run(examples(), out=tmp_path, model=model, init=init, **SETTINGS)
    rows = rows_of(tmp_path)
    steps = [row for row in rows if "loss" in row]
    valid = [row for row in rows if "valid_loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 13))
    assert [row["step"] for row in valid] == [0, 4, 8, 12]
    fields = {"loss", "learning_rate", "tokens", "supervised_tokens", "seconds", "peak_bytes"}
    assert all(fields <= set(row) for row in steps)
    assert len(rows) == 13, "one row a step, and one for the start"
    assert all({"valid_seconds", "peak_bytes"} <= set(row) for row in valid)
    assert all(0 < row["supervised_tokens"] < row["tokens"] for row in steps)
    assert all(row["seconds"] > 0 and row["peak_bytes"] > 0 for row in steps)
    assert [row["learning_rate"] for row in steps] == [
        Schedule(5e-3, 12, 0.05)(i) for i in range(12)
    ]
    first, last = (np.mean([row["loss"] for row in part]) for part in (steps[:3], steps[-3:]))
    assert last < first - 0.5
    assert min(row["valid_loss"] for row in valid) < valid[0]["valid_loss"] - 0.3
    assert result.steps == 12


@pytest.mark.parametrize("contrary", [False, True], ids=["valid improves", "valid gets worse"])
def test_the_best_on_valid_is_kept(tmp_path: Path, model: str, contrary: bool) -> None:
    rows = examples()
    if contrary:  # an answer that training makes ever less likely
        rows = [strange(row) if row.split == "valid" else row for row in rows]
    # An init with which the loss of that answer does rise.
    own = SETTINGS | {"learning_rate": 0.03, "init": "pissa"}
    result = train.run(rows, out=tmp_path, model=model, **own)
    losses = {r["step"]: r["valid_loss"] for r in rows_of(tmp_path) if "valid_loss" in r}
    assert result.best_valid_loss == min(losses.values())
    assert losses[result.best_step] == result.best_valid_loss
    assert (result.best_step < 12) == contrary
    if contrary:  # from its best on each step is worse
        on = train.run(
            rows, out=tmp_path / "on", model=model, keep_start=False,
            adapters=str(tmp_path), **own | {"steps": 2, "valid_every": 1},
        )  # fmt: skip
        kept = {r["step"]: r["valid_loss"] for r in rows_of(tmp_path / "on") if "valid_loss" in r}
        assert (on.best_step, on.best_valid_loss) == (1, kept[1]) and kept[0] < kept[1] < kept[2]
    tuned = load_tuned(result.adapters)
    valid = [row for row in rows if row.split == "valid"]
    groups = make_groups(valid, tuned.tokenizer, max_tokens=2048)
    assert mean_loss(tuned.model, groups) == result.best_valid_loss


def strange(row: Example) -> Example:
    messages = [*row.messages[:-1], Message(role="assistant", content="ZQ@~ {^} ÿþ WXK%% ¬¬")]
    return row.model_copy(update={"messages": messages})


TAKES = ("pissa", "qpissa", "loftq")  # a part of W out of the base; LoftQ from T = 2 on


@pytest.mark.parametrize(
    "init,bits",
    [("pissa", 4), ("pissa", 8), ("pissa", 16), ("lora", 4), ("qpissa", 3), ("loftq", 2),
     ("dora", 4)],
)  # fmt: skip
def test_the_stored_adapters_are_the_model_that_was_trained(
    tmp_path: Path, model: str, init: str, bits: int
) -> None:
    from forge_cli.train.callbacks import Callback, Run, Validation

    seen: list[np.ndarray] = []

    class Watch(Callback):
        def on_validation(self, run: Run, validation: Validation) -> None:
            seen.append(logits(run.model, IDS))

    settings = SETTINGS | {"steps": 4, "callbacks": [Watch()]}
    result = train.run(examples(), out=tmp_path, model=model, init=init, bits=bits, **settings)
    assert result.best_step == 4
    tuned = load_tuned(result.adapters)
    assert np.array_equal(logits(tuned.model, IDS), seen[-1])
    assert not np.array_equal(seen[0], seen[-1])
    config = json.loads((result.adapters / "config.json").read_text())
    stored = "lora" if init == "dora" else init
    assert (config["init"], config["bits"], config["rank"]) == (stored, bits, 4)
    assert config["dora"] == (init == "dora")
    assert (result.adapters / "initial.safetensors").exists() == (init in TAKES)


def test_every_setting_of_the_adapters_reaches_them(tmp_path: Path, model: str) -> None:
    settings = SETTINGS | {
        "steps": 2, "init": "qpissa", "alternations": 2, "svd_iterations": "exact", "dora": True,
        "rslora": True, "alpha": 8.0, "quant_mode": "mxfp4", "group_size": 32, "layers": "1-1",
        "rank_pattern": {"down_proj": 2}, "targets": ("*.self_attn.q_proj", "down_proj"),
        "cache": tmp_path / "cache",
    }  # fmt: skip
    result = train.run(examples(), out=tmp_path / "run", model=model, **settings)
    config = json.loads((result.adapters / "config.json").read_text())
    down, query = "model.layers.1.mlp.down_proj", "model.layers.1.self_attn.q_proj"
    assert config["modules"] == [down, query]
    assert (config["mode"], config["rslora"], config["dora"]) == ("mxfp4", True, True)
    assert (config["ranks"], config["scales"]) == ({down: 2}, {down: 8 / 2**0.5})
    assert len(list((tmp_path / "cache").iterdir())) == 2
    first = load_arrays(result.adapters / "adapters.safetensors")
    assert {name: value.shape for name, value in first.items()} == {
        f"{down}.A": (2, 192), f"{down}.B": (128, 2), f"{down}.m": (128,),
        f"{query}.A": (4, 128), f"{query}.B": (128, 4), f"{query}.m": (128,),
    }  # fmt: skip
    initial = load_initial(result.adapters)
    assert not mx.array_equal(first[f"{query}.A"], initial[f"{query}.A"]), "it trained"
    seen: list[str] = []

    class Listen:
        warn = staticmethod(seen.append)
        note = staticmethod(seen.append)

    load_tuned(result.adapters, reporter=Listen())  # type: ignore[arg-type]
    assert seen == [], "the residual came out as it was trained"
    with pytest.raises(UsageError, match="group_size 64: not in quant_mode mxfp4"):
        train.run(examples(), out=tmp_path, model=model, quant_mode="mxfp4")


def test_bits_decide_how_near_the_start_is_to_the_model(model: str) -> None:
    error = {}
    plain = logits(load_dense(model).model, IDS)
    for bits in (4, 8, 16):
        loaded = load_dense(model)
        from forge_cli.train.initial import start_adapters

        config = AdapterConfig(model, "pissa", 4, 4.0, bits, 64, [])
        start_adapters(loaded.model, config, targets=["q_proj", "up_proj"], layers=0, seed=0)
        error[bits] = float(np.abs(logits(loaded.model, IDS) - plain).mean())
    assert error[16] < 1e-4 < error[8] < error[4]


class Interrupt:
    """A reporter whose task raises what Ctrl-C raises, after step `at`."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.done = 0.0
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.notes.append(message)

    def task(self, name: str, total: float | None = None) -> Any:
        from contextlib import nullcontext

        return nullcontext(self if name == "training" else Interrupt(-1))

    def advance(self, amount: float = 1.0, detail: str = "") -> None:
        self.done += amount
        if self.done == self.at and amount:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: str) -> dict[str, Path]:
    out = {}
    for init in ("pissa", "qpissa", "lora", "loftq", "dora"):
        out[init] = tmp_path_factory.mktemp(init)
        train.run(examples(), out=out[init], model=model, init=init, **SETTINGS)
    return out


def same_files(one: Path, two: Path) -> None:
    names = ["adapters/adapters.safetensors", "adapters/config.json"]
    names += [f"checkpoints/{newest(one).name}"]
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def newest(out: Path) -> Path:
    return checkpoints(out / "checkpoints")[-1]


def what_was_computed(out: Path) -> list[dict[str, Any]]:
    measured = {"seconds", "valid_seconds", "peak_bytes", "step_bytes"}
    return [{k: v for k, v in row.items() if k not in measured} for row in rows_of(out)]


# In the middle, right before a validation, and before the last one.
@pytest.mark.parametrize("init,at", [
    ("pissa", 6), ("pissa", 8), ("pissa", 12), ("lora", 6), ("qpissa", 6), ("loftq", 6),
    ("dora", 6),
])  # fmt: skip
def test_resumed_is_bit_for_bit_as_uninterrupted(
    tmp_path: Path, model: str, whole: dict[str, Path], init: str, at: int
) -> None:
    settings = SETTINGS | {"out": tmp_path, "model": model, "init": init}
    stopped = Interrupt(at)
    with pytest.raises(KeyboardInterrupt):
        train.run(examples(), reporter=stopped, **settings)
    assert any(f"stopped after step {at}" in note for note in stopped.notes)
    again = Interrupt(-1)
    train.run(examples(), reporter=again, **settings)
    assert f"resuming after step {at}" in again.notes
    same_files(tmp_path, whole[init])
    assert what_was_computed(tmp_path) == what_was_computed(whole[init])


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    tmp_path: Path, model: str, whole: dict[str, Path]
) -> None:
    settings = SETTINGS | {"out": tmp_path, "model": model}
    with pytest.raises(KeyboardInterrupt):
        train.run(examples(), reporter=Interrupt(4), **settings)
    early = newest(tmp_path).read_bytes()
    train.run(examples(), **settings)
    # What a killed process leaves: an old checkpoint, later rows, the last one torn.
    for file in checkpoints(tmp_path / "checkpoints"):
        file.unlink()
    path_of(tmp_path / "checkpoints", 4).write_bytes(early)
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 13, "lo')
    train.run(examples(), **settings)
    same_files(tmp_path, whole["qpissa"])
    assert what_was_computed(tmp_path) == what_was_computed(whole["qpissa"])


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, model: str) -> None:
    settings = SETTINGS | {"out": tmp_path, "model": model, "steps": 2}
    first = train.run(examples(), **settings)
    before = (tmp_path / "metrics.jsonl").read_text()
    assert train.run(examples(), **settings) == first
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_an_update_cut_in_half_is_not_saved(
    tmp_path: Path, model: str, whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlx.optimizers as optim

    real = optim.AdamW.update

    def cut(self: Any, model: Any, gradients: Any) -> None:
        real(self, model, gradients)
        if self.step.item() == 6:
            raise KeyboardInterrupt

    settings = SETTINGS | {"out": tmp_path, "model": model}
    with monkeypatch.context() as patch:
        patch.setattr(optim.AdamW, "update", cut)
        with pytest.raises(KeyboardInterrupt):
            train.run(examples(), **settings)
    again = Interrupt(-1)
    train.run(examples(), reporter=again, **settings)
    assert "resuming after step 4" in again.notes
    same_files(tmp_path, whole["qpissa"])


def test_another_rank_does_not_take_up_the_run(tmp_path: Path, model: str) -> None:
    train.run(examples(), out=tmp_path, model=model, **SETTINGS | {"steps": 1})
    with pytest.raises(ForgeError, match="adapters of another rank or on other layers") as error:
        train.run(examples(), out=tmp_path, model=model, **SETTINGS | {"steps": 1, "rank": 8})
    assert "--fresh" in error.value.hint


def test_a_broken_checkpoint_is_named(tmp_path: Path, model: str) -> None:
    train.run(examples(), out=tmp_path, model=model, **SETTINGS | {"steps": 1})
    for file in checkpoints(tmp_path / "checkpoints"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ForgeError, match=r"step-00000001\.safetensors: not a usable checkpoint"):
        train.run(examples(), out=tmp_path, model=model, **SETTINGS | {"steps": 1})


def test_what_another_run_left_is_not_subtracted(tmp_path: Path, model: str) -> None:
    train.run(examples(), out=tmp_path, model=model, **SETTINGS | {"steps": 1})
    for file in checkpoints(tmp_path / "checkpoints"):
        file.unlink()
    train.run(examples(), out=tmp_path, model=model, init="lora", **SETTINGS | {"steps": 1})
    assert load_initial(tmp_path / "adapters") == {}


def test_a_loss_that_is_no_number_stops_training(tmp_path: Path, model: str) -> None:
    broken = tmp_path / "broken"
    save_model(broken)
    weights = load_arrays(broken / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = weights[name] * float("nan")
    mx.save_safetensors(str(broken / "model.safetensors"), weights)
    with pytest.raises(ForgeError, match="broken: the model's losses are not numbers"):
        train.run(examples(), out=tmp_path / "out", model=str(broken), **SETTINGS)
    # A rate that blows the weights up: the step is named, the last checkpoint stands.
    wild = SETTINGS | {"learning_rate": 1e30, "warmup": 0.0}
    with pytest.raises(ForgeError, match=r"step 2: .* not a number") as error:
        train.run(examples(), out=tmp_path / "wild", model=model, **wild)
    assert "learning_rate" in error.value.hint
    assert newest(tmp_path / "wild").name == "step-00000000.safetensors"


@pytest.mark.parametrize("split", ["train", "valid"])
def test_both_splits_are_needed(tmp_path: Path, split: str) -> None:
    rows = [row for row in examples() if row.split == split]
    with pytest.raises(ForgeError, match=r"training and .* validation rows: both are needed"):
        train.run(rows, out=tmp_path, model="never loaded")
    assert not list(tmp_path.iterdir())


def test_a_row_that_is_too_long_is_named(tmp_path: Path, model: str) -> None:
    long = example(1, 1, size=200)
    with pytest.raises(ForgeError, match=r"example 1-1: \d{4} tokens, more than 1000") as error:
        train.run([long, *examples()], out=tmp_path, model=model, max_tokens=1000)
    assert "max_tokens" in error.value.hint


def test_an_unknown_init_is_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(UsageError, match="init olora: unknown"):
        train.run(examples(), out=tmp_path, model=model, init="olora")


def test_groups_are_contexts_of_at_most_8_rows(model: str) -> None:
    tokenizer = load_dense(model).tokenizer
    rows = [example(context, question % 12) for question in range(10) for context in (1, 2)]
    groups = make_groups(rows, tokenizer, max_tokens=2048)
    assert [len(group.counts) for group in groups] == [8, 2, 8, 2]
    assert all(group.prefix.size > 100 for group in groups)


def test_the_settings_of_the_loop_reach_it(tmp_path: Path, model: str) -> None:
    settings = SETTINGS | {"model": model, "steps": 4, "accumulate": 2, "valid_every": 4}

    def adapters(name: str, **changes: Any) -> bytes:
        out = tmp_path / name
        train.run(examples(), out=out, **settings | changes)
        return (out / "adapters/adapters.safetensors").read_bytes()

    constant = {"schedule": "constant", "warmup": 0.0}
    plain = adapters("plain", **constant, save_every=1, keep_last=3)
    rows = [row for row in rows_of(tmp_path / "plain") if "loss" in row]
    assert {row["learning_rate"] for row in rows} == {5e-3}
    assert len(checkpoints(tmp_path / "plain/checkpoints")) == 3
    changes: list[dict[str, Any]] = [
        {"optimiser": "adafactor"}, {"optimiser": "lion"}, {"optimiser": "muon"},
        {"accumulate": 1}, {"neftune": 5.0}, {"schedule": "wsd", "decay": 0.5},
    ]  # fmt: skip
    others = [adapters(f"{n}", **constant | change) for n, change in enumerate(changes)]
    assert len({plain, *others}) == 1 + len(changes)
    deep = str(save_model(tmp_path / "deep-model", num_hidden_layers=8))
    peaks = []
    for checkpointed in (False, True):
        name = f"deep-{checkpointed}"
        adapters(name, model=deep, steps=1, layers=0, gradient_checkpointing=checkpointed)
        peaks.append(max(row.get("step_bytes", 0) for row in rows_of(tmp_path / name)))
    assert peaks[1] < 0.9 * peaks[0]
    with pytest.raises(ForgeError, match="memory: training needs about"):
        adapters("small", memory_limit=1e-4)


def test_the_pipeline_hands_on_what_the_stage_takes() -> None:
    from inspect import signature

    from forge_cli.core.config import Settings
    from forge_cli.pipeline import train_settings

    taken = set(signature(train.run).parameters)
    taken -= {"examples", "out", "callbacks", "reporter", "world"}
    assert set(train_settings(Settings())) == taken


def test_epochs_count_groups(tmp_path: Path, model: str) -> None:
    settings = {"rank": 2, "layers": 1, "targets": ("q_proj",), "model": model}
    assert train.run(examples(), out=tmp_path / "two", epochs=2.0, **settings).steps == 6


def test_few_rows_are_passed_over_again(tmp_path: Path, model: str) -> None:
    assert [suited_epochs(steps) for steps in (0, 10, 40, 100, 5000)] == [4, 4, 2.5, 1, 1]
    settings = {"rank": 2, "layers": 1, "targets": ("q_proj",), "model": model}
    found = train.run(examples(), out=tmp_path / "first", **settings)
    assert (found.steps, found.epochs) == (12, 4.0)
    # What goes on from adapters has learned already.
    on = train.run(
        examples(), out=tmp_path / "on", adapters=tmp_path / "first" / "adapters", **settings
    )
    assert (on.steps, on.epochs) == (3, 1.0)


def test_schedule_rises_then_falls_to_zero() -> None:
    schedule = Schedule(peak=1.0, steps=100, warmup=0.1)
    rates = [schedule(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert schedule(100) == pytest.approx(0.0)
    assert [replace(schedule, warmup=0.0)(step) for step in (0, 1)] == [1.0, 1.0]
    assert Schedule(1.0, 1, 0.05)(0) == 1.0


def test_order_is_seeded_permutations() -> None:
    plan = order(5, 12, seed=3)
    assert plan == order(5, 12, seed=3)
    assert plan != order(5, 12, seed=4)
    assert sorted(plan[:5]) == sorted(plan[5:10]) == list(range(5))
    assert plan[:5] != plan[5:10]
    assert order(5, 20, seed=3)[:12] == plan, "a longer run starts the same"


def test_attach_quantises_what_pissa_left(model: str) -> None:
    """deq(quant(W − sB₀A₀)) + sB₀A₀ is nearer to W than deq(quant(W)): QPiSSA's point."""
    from forge_cli.models.adapters import LoRALinear, get_module
    from forge_cli.models.quantise import round_trip
    from forge_cli.train.initial import start_adapters

    loaded = load_dense(model)
    name = "model.layers.0.mlp.up_proj"
    W = get_module(loaded.model, name).weight
    plain = mx.linalg.norm(W - round_trip(W, bits=4, group_size=64)).item()
    config = AdapterConfig(model, "pissa", 64, 64.0, 4, 64, [])
    start_adapters(loaded.model, config, targets=["up_proj"], layers=0, seed=0)
    layer = get_module(loaded.model, name)
    assert isinstance(layer, LoRALinear)
    assert mx.linalg.norm(W - layer.merged()).item() < 0.9 * plain
