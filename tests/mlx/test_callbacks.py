"""Callbacks: each does its job in a real run, and a resumed run gets what a whole one does."""

from __future__ import annotations

import gc
import importlib.util
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from forge_cli import train
from forge_cli.core.errors import UsageError
from forge_cli.models.backend import mx, nn
from forge_cli.models.shared_context import Group
from forge_cli.train.callbacks import (
    Abort,
    Best,
    Callback,
    EarlyStopping,
    Memory,
    Metrics,
    MLflow,
    Report,
    Run,
    TensorBoard,
    Validation,
    WandB,
)
from forge_cli.train.callbacks.metrics import read_rows
from forge_cli.train.callbacks.report import plot, render, thinned
from forge_cli.train.checkpoint import checkpoints
from forge_cli.train.micro_batches import group_loss
from forge_cli.train.step import Step
from tiny_loop import batch, same_arrays, train_tiny
from tiny_train import examples, save_model

PLAN = [[batch(3, context=n % 3)] for n in range(8)]


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.details: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def task(self, name: str, total: float | None = None) -> Any:
        from contextlib import nullcontext

        return nullcontext(self)

    def advance(self, amount: float = 1.0, detail: str = "") -> None:
        self.details.append(detail)


def scripted(losses: list[float]) -> Any:
    """A loss whose validations come out as `losses`, one after another."""
    left = iter(losses)

    def loss(model: nn.Module, group: Group) -> tuple[mx.array, int]:
        return group_loss(model, group) if model.training else (mx.array(next(left)), 1)

    return loss


def test_progress_says_loss_speed_memory_and_time_left(tmp_path: Path) -> None:
    notes = Notes()
    train_tiny(tmp_path, PLAN, reporter=notes)
    pattern = r"loss \d\.\d{3} · [\d,]+ tokens/s \([\d,]+ supervised\) · \d+\.\d GB · \d+:\d\d min"
    assert len(notes.details) == 9
    assert all(re.match(pattern, detail) for detail in notes.details[1:]), notes.details
    assert notes.details[-1].endswith("0:00 min left")


# 1.0 is the best; 0.95 is better than it by less than 0.1; 0.85 by more.
@pytest.mark.parametrize(
    "losses,patience,min_delta,stops_at",
    [
        ([2.0, 1.0, 1.5, 1.4, 1.3], 2, 0.0, 3),
        ([2.0, 1.0, 1.5, 0.9, 1.3, 1.2], 2, 0.0, 5),
        ([2.0, 1.0, 0.95, 0.92, 0.5], 2, 0.1, 3),
        ([2.0, 1.0, 0.95, 0.85, 0.86, 0.87], 2, 0.1, 5),
        ([2.0, 1.0, 1.0, 0.5], 1, 0.0, 2),
        ([2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.2], 1, 0.0, 8),
    ],
)
def test_early_stopping_waits_for_its_patience(
    tmp_path: Path, losses: list[float], patience: int, min_delta: float, stops_at: int
) -> None:
    stopping, notes = EarlyStopping(patience, min_delta), Notes()
    settings = {"loss": scripted(losses), "valid_every": 1, "reporter": notes}
    progress, arrays = train_tiny(tmp_path, PLAN, stopping, **settings)
    assert progress.step == stops_at
    assert any("stopped early" in note for note in notes.notes) == (stops_at < 8)
    if stops_at < 8:  # the same command finds it finished
        again, same = train_tiny(tmp_path, PLAN, EarlyStopping(patience, min_delta))
        assert again == progress and same_arrays(same, arrays)


def test_best_is_called_for_each_better_loss_only(tmp_path: Path) -> None:
    kept: list[str] = []
    settings = {"loss": scripted([2.0, 2.5, 1.0, 1.0, 0.5]), "valid_every": 2}
    progress, _ = train_tiny(tmp_path, PLAN, Best(lambda: kept.append("kept")), **settings)
    assert len(kept) == 3
    assert (progress.best_loss, progress.best_step) == (0.5, 8)


def test_the_last_and_the_best_checkpoint_are_kept(tmp_path: Path) -> None:
    settings = {"loss": scripted([2.0, 0.1, 1.0, 1.0, 0.5]), "valid_every": 2, "save_every": 1}
    train_tiny(tmp_path, PLAN, keep_last=3, **settings)
    names = [int(file.stem[5:]) for file in checkpoints(tmp_path / "checkpoints")]
    assert names == [2, 6, 7, 8]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    whole, arrays = train_tiny(tmp_path, PLAN, keep_last=2)
    last = checkpoints(tmp_path / "checkpoints")[-1]
    last.write_bytes(last.read_bytes()[:-50])
    notes = Notes()
    again, same = train_tiny(tmp_path, PLAN, reporter=notes)
    assert again == whole and same_arrays(same, arrays)
    assert "step-00000008.safetensors: not a usable checkpoint" in notes.warnings[0]
    assert "resuming after step 4" in notes.notes


# Memory: what the tiny model needs is measured first, then the limit is put around it.


@pytest.fixture(scope="module")
def need(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Peak bytes of a step of the plan."""
    seen: list[int] = []

    class See(Callback):
        def on_step(self, run: Run, step: Step) -> None:
            seen.append(step.step_bytes)

    gc.collect()  # models of other tests, still held, would count
    train_tiny(tmp_path_factory.mktemp("need"), PLAN, See())
    return max(seen)


class Watch(Callback):
    """Keeps what each step needed, and how much MLX holds after it."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.cache: list[int] = []

    def on_step(self, run: Run, step: Step) -> None:
        self.steps.append(step)
        self.cache.append(mx.get_cache_memory())


def test_memory_warns_once_at_its_share(tmp_path: Path, need: int) -> None:
    for share, warned in ((0.85, 1), (0.5, 0)):
        notes = Notes()
        memory = Memory(int(need / share), warn_share=0.8, high_share=2.0)
        train_tiny(tmp_path / str(share), PLAN, memory, reporter=notes)
        assert len([w for w in notes.warnings if "of memory" in w]) == warned


def test_memory_frees_the_cache_when_it_grows(tmp_path: Path, need: int) -> None:
    held = {}
    for name, limit in (("free", need * 1000), ("tight", need)):
        mx.clear_cache()
        watch = Watch()
        train_tiny(tmp_path / name, PLAN, Memory(limit, high_share=9.0), watch)
        held[name] = watch.cache
    assert min(held["free"]) > 0 and max(held["tight"]) == 0


def test_memory_steps_the_batch_down_and_learns_the_same(tmp_path: Path, need: int) -> None:
    _, arrays = train_tiny(tmp_path / "whole", PLAN)
    notes, watch = Notes(), Watch()
    limit = int(need / 0.95)
    progress, parts = train_tiny(tmp_path / "parts", PLAN, watch, Memory(limit), reporter=notes)
    assert 0 < progress.max_tokens < PLAN[0][0].tokens
    assert any("run at once" in warning for warning in notes.warnings)
    assert watch.steps[0].largest_rows == 3 and watch.steps[-1].largest_rows < 3
    first, last = watch.steps[0].step_bytes, watch.steps[-1].step_bytes
    assert first > 0.9 * limit and first > last
    assert all(mx.allclose(parts[k], arrays[k], atol=1e-4).item() for k in arrays)
    # What was stepped down stays so in a run that is taken up again.
    again = Watch()
    train_tiny(tmp_path / "parts", [*PLAN, PLAN[0]], again, Memory(limit))
    assert again.steps[0].largest_rows == watch.steps[-1].largest_rows


def test_memory_foresees_a_larger_batch(tmp_path: Path, need: int) -> None:
    plan = [[batch(1)], [batch(1)], [batch(8, answer=30)]]
    free, tight = Watch(), Watch()
    train_tiny(tmp_path / "free", plan, free)
    small, large = free.steps[0].step_bytes, free.steps[2].step_bytes
    limit = (small + large) // 2
    train_tiny(tmp_path / "tight", plan, tight, Memory(limit))
    assert large > limit > 1.2 * small, "the small batches fit well, the large one does not"
    assert tight.steps[2].largest_rows < 8 and tight.steps[2].step_bytes < limit


def test_memory_gives_up_with_a_checkpoint(tmp_path: Path, need: int) -> None:
    with pytest.raises(Abort, match="its rows already run one by one") as error:
        train_tiny(tmp_path, PLAN, Memory(need // 20))
    assert "memory_limit" in error.value.hint
    step = int(re.match(r"step (\d+)", error.value.message)[1])  # type: ignore[index]
    assert checkpoints(tmp_path / "checkpoints")[-1].name == f"step-{step:08}.safetensors"
    progress, _ = train_tiny(tmp_path, PLAN)  # on a machine with more memory
    assert progress.step == 8


# The page.


class Page(HTMLParser):
    """Counts tags, and holds that each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}
        self.points: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.points += [value or "" for name, value in attrs if name == "points"]
        assert not {"src", "href"} & {name for name, _ in attrs}, "the page needs nothing else"
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_drawn_while_it_trains(tmp_path: Path) -> None:
    seen: list[str] = []

    class Look(Callback):
        def on_validation(self, run: Run, validation: Validation) -> None:
            seen.append((tmp_path / "report.html").read_text())

    train_tiny(tmp_path, PLAN, Metrics(), Report("tiny <run>"), Look())
    assert len(seen) == 3 and all("refresh" in page for page in seen)
    final = (tmp_path / "report.html").read_text()
    assert "refresh" not in final and "finished" in final and "tiny &lt;run&gt;" in final
    pages = [Page(text) for text in (*seen, final)]
    assert [page.counts["svg"] for page in pages] == [1, 4, 4, 4]
    points = [points for points in pages[-1].points]
    # train and valid loss, rate, all and supervised tokens, step and run memory
    assert [len(p.split()) for p in points] == [8, 3, 8, 8, 8, 8, 8]
    assert "http" not in final.replace("http-equiv", "")


def test_a_plot_spans_its_frame() -> None:
    drawn = plot("t", {"a": [(0, 4.0), (10, 2.0), (20, 0.0)], "b": [(20, 1.0)], "c": []})
    assert drawn is not None and [curve.name for curve in drawn.curves] == ["a", "b"]
    assert drawn.curves[0].points == "0.0,0.0 320.0,80.0 640.0,160.0"
    assert drawn.curves[1].points == "640.0,120.0" and drawn.curves[1].last == "1"
    assert (drawn.low, drawn.high, drawn.first, drawn.final) == ("0", "4", 0, 20)
    assert plot("t", {"a": []}) is None
    assert plot("t", {"a": [(3, 2.0)]}) is not None, "one point, no width"
    many = [(float(n), 2.0 * n) for n in range(1001)]
    few = thinned(many)
    assert 300 < len(few) <= 400 and few[0] == (1.0, 2.0)


def test_the_page_of_a_run_without_steps_is_whole() -> None:
    page = render([], [], title="t", steps=3, state="training", live=True)
    assert Page(page).counts.get("svg", 0) == 0


# Samples, through the stage: they need a tokenizer.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("model")))


SETTINGS: dict[str, Any] = {
    "rank": 4, "steps": 8, "learning_rate": 5e-3, "valid_every": 2, "layers": 0,
    "targets": ("q_proj", "v_proj", "down_proj"), "sample_every": 2, "sample_rows": 2,
}  # fmt: skip


def test_samples_are_the_models_answers_while_it_learns(tmp_path: Path, model: str) -> None:
    class Leave(Callback):
        """Ctrl-C after the samples of step 4 are written, before its validation counts."""

        def on_validation(self, run: Run, validation: Validation) -> None:
            if validation.step == 4:
                raise KeyboardInterrupt

    train.run(examples(), out=tmp_path / "whole", model=model, **SETTINGS)
    text = (tmp_path / "whole/samples.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [(row["step"], row["id"]) for row in rows] == [
        (step, row_id) for step in (0, 4, 8) for row_id in ("7-0", "7-1")
    ]
    assert rows[0]["expected"] == "value_7_0 is 0." and rows[0]["question"].startswith("What is")
    assert rows[0]["answer"] != rows[4]["answer"], "it learned"
    cut = {"out": tmp_path / "cut", "model": model}
    with pytest.raises(KeyboardInterrupt):
        train.run(examples(), callbacks=[Leave()], **cut, **SETTINGS)
    train.run(examples(), **cut, **SETTINGS)
    assert (tmp_path / "cut/samples.jsonl").read_text() == text
    plain = train.run(
        examples(), out=tmp_path / "no", model=model, **SETTINGS | {"sample_every": 0}
    )
    assert not (tmp_path / "no/samples.jsonl").exists()
    whole = (tmp_path / "whole/adapters/adapters.safetensors").read_bytes()
    assert (plain.adapters / "adapters.safetensors").read_bytes() == whole, "sampling is no input"


def test_a_run_leaves_its_page_and_rows(tmp_path: Path, model: str) -> None:
    train.run(examples(), out=tmp_path, model=model, **SETTINGS, patience=1, min_delta=99.0)
    assert read_rows(tmp_path)[-1]["step"] == 2, "patience reaches the stage"
    Page((tmp_path / "report.html").read_text())


# Other programs.


@pytest.mark.parametrize(
    "kind,module", [(TensorBoard, "tensorboardX"), (WandB, "wandb"), (MLflow, "mlflow")]
)
def test_a_tracker_that_is_not_installed_says_how_to(
    monkeypatch: pytest.MonkeyPatch, kind: Any, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=f"cannot import {module}") as error:
        kind()
    assert re.search(r"pip install 'forge-cli\[\w+\]'", error.value.hint)


def test_an_unknown_tracker_is_named_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="track neptune: unknown"):
        train.run(examples(), out=tmp_path, model="never loaded", **SETTINGS, track=["neptune"])


def test_trackers_hear_of_a_run_of_the_stage(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import forge_cli.train.callbacks as known

    heard: list[Callback] = []

    class Hear(Callback):
        def on_end(self, run: Run) -> None:
            heard.append(self)

    monkeypatch.setitem(known.TRACKERS, "wandb", Hear)
    train.run(examples(), out=tmp_path, model=model, **SETTINGS | {"steps": 1}, track=["wandb"])
    assert len(heard) == 1


needs = {
    name: pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"{name} not installed")
    for name in ("tensorboardX", "wandb", "mlflow")
}


@needs["tensorboardX"]
def test_tensorboard_gets_each_step(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    train_tiny(tmp_path, PLAN, Metrics(), TensorBoard())
    found: dict[str, list[int]] = {}
    for file in sorted((tmp_path / "tensorboard").iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):  # length, its checksum, the event, its checksum
            size = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + size])
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
            at += 16 + size
    assert found["train/loss"] == list(range(1, 9))
    assert found["valid/loss"] == [0, 4, 8]
    assert "train/peak_bytes" in found


@needs["wandb"]
def test_wandb_gets_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train_tiny(tmp_path, PLAN, Metrics(), WandB())
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


@needs["mlflow"]
def test_mlflow_gets_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train_tiny(tmp_path, PLAN, Metrics(), MLflow())
    import mlflow

    run_id = (tmp_path / "mlflow-run.txt").read_text().strip()
    history = mlflow.MlflowClient().get_metric_history(run_id, "train/loss")
    assert [point.step for point in history] == list(range(1, 9))
    assert mlflow.get_run(run_id).info.status == "FINISHED"
