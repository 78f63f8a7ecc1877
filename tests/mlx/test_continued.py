"""Training that goes on from adapters: of a run, of a folder, of PEFT."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forge_cli import train
from forge_cli.core.config import resolve
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import Silent
from forge_cli.models.adapters import load_arrays, read_adapters
from forge_cli.models.peft import write_peft
from forge_cli.pipeline.continued import with_adapters
from tiny_train import examples, save_model

FIRST: dict[str, Any] = {
    "rank": 4, "steps": 6, "learning_rate": 5e-3, "valid_every": 3, "layers": 0,
    "targets": ("q_proj", "v_proj", "down_proj"),
}  # fmt: skip
# What the adapters fix is told wrongly here: it must not count.
THEN: dict[str, Any] = FIRST | {"rank": 2, "targets": ("up_proj",), "layers": 1, "seed": 5}
STARTS: dict[str, dict[str, Any]] = {
    "pissa": {"rank_pattern": {"q_proj": 6}, "alpha": 7.0},
    "qpissa, dora": {"init": "qpissa", "dora": True, "bits": 8},
    "lora, rslora": {"init": "lora", "rslora": True, "bits": 3},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(tmp_path_factory.mktemp("model")))


class Words(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def losses(out: Path) -> dict[int, float]:
    """Validation losses by step."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["valid_loss"] for row in rows if "valid_loss" in row}


@pytest.mark.parametrize("start", STARTS)
def test_it_begins_where_the_other_run_was_best(tmp_path: Path, model: str, start: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first = train.run(examples(), out=one, model=model, **FIRST, **STARTS[start])
    words = Words()
    train.run(examples(), out=two, model=model, adapters=one / "adapters", reporter=words, **THEN)
    assert losses(two)[0] == pytest.approx(first.best_valid_loss, rel=1e-6)
    assert losses(two)[6] != losses(two)[0]
    assert words.warnings == []
    before, after = read_adapters(one / "adapters"), read_adapters(two / "adapters")
    assert after.config == before.config
    assert set(after.initial) == set(before.initial)


@pytest.mark.parametrize("bits", [16, 4])
def test_adapters_of_peft_are_trained_on(tmp_path: Path, model: str, bits: int) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first = train.run(examples(), out=one, model=model, bits=16, **FIRST)
    write_peft(tmp_path / "peft", read_adapters(one / "adapters"))
    train.run(examples(), out=two, model=model, adapters=tmp_path / "peft", bits=bits, **THEN)
    config = read_adapters(two / "adapters").config
    assert (config.bits, config.rank, config.init) == (bits, 8, "lora")
    near = 1e-5 if bits == 16 else 0.1  # four bits move the base under the adapters
    assert losses(two)[0] == pytest.approx(first.best_valid_loss, rel=near)
    assert losses(two)[0] < 0.9 * losses(one)[0]


class Interrupt(Words):
    """Ctrl-C after four steps."""

    def task(self, name: str, total: float | None = None) -> Any:
        return nullcontext(self)

    def advance(self, amount: float = 1.0, detail: str = "") -> None:
        self.steps = getattr(self, "steps", 0.0) + amount
        if self.steps == 4:
            raise KeyboardInterrupt


def test_resumed_it_needs_the_source_no_more(tmp_path: Path, model: str) -> None:
    source = tmp_path / "one" / "adapters"
    train.run(examples(), out=source.parent, model=model, **FIRST)
    settings = THEN | {"model": model, "adapters": source}
    train.run(examples(), out=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        train.run(examples(), out=tmp_path / "cut", reporter=Interrupt(), **settings)
    shutil.rmtree(source)
    train.run(examples(), out=tmp_path / "cut", **settings)
    names = ("adapters.safetensors", "initial.safetensors", "config.json")
    for name in (f"adapters/{name}" for name in names):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_does_not_fit_is_named(tmp_path: Path, model: str) -> None:
    one = tmp_path / "one"
    train.run(examples(), out=one, model=model, **(FIRST | {"steps": 1}))
    other = str(save_model(tmp_path / "other", hidden_size=64))
    with pytest.raises(UsageError, match=r"is for a layer .* has .*") as caught:
        train.run(examples(), out=tmp_path / "two", model=other, adapters=one, **THEN)
    assert model in caught.value.hint
    small = str(save_model(tmp_path / "small", num_hidden_layers=1))
    with pytest.raises(UsageError, match=r"has no layer model\.layers\.1\."):
        train.run(examples(), out=tmp_path / "two", model=small, adapters=one, **THEN)
    with pytest.raises(UsageError, match="no such adapters"):
        train.run(examples(), out=tmp_path / "two", model=model, adapters=tmp_path / "no", **THEN)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ForgeError, match="no usable adapters"):
        train.run(examples(), out=tmp_path / "two", model=model, adapters=tmp_path / "empty")


def test_other_weights_are_warned_of(tmp_path: Path, model: str) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    train.run(examples(), out=one, model=model, **(FIRST | {"steps": 1}))
    shutil.copytree(model, other)
    weights = load_arrays(other / "model.safetensors")
    from forge_cli.models.adapters import save_arrays

    save_arrays(other / "model.safetensors", {k: v * 1.5 for k, v in weights.items()})
    words = Words()
    settings = THEN | {"steps": 1, "model": str(other), "adapters": one, "reporter": words}
    train.run(examples(), out=tmp_path / "two", **settings)
    assert any("the residual differs" in warning for warning in words.warnings)


def test_settings_are_those_of_the_adapters(tmp_path: Path, model: str) -> None:
    one = tmp_path / "one"
    train.run(examples(), out=one, model=model, bits=8, init="pissa", **(FIRST | {"steps": 1}))
    given: dict[str, Any] = {"project": tmp_path, "environ": {}}
    found = with_adapters(resolve({"adapters": str(one / "adapters")}, **given))
    s = found.settings
    assert (s.model, s.bits, s.rank, s.init) == (model, 8, 4, "pissa")
    assert found.origins["rank"] == f"adapters {one / 'adapters'}"
    with pytest.raises(UsageError, match=r"--rank 16: .* has rank 4"):
        with_adapters(resolve({"adapters": str(one / "adapters"), "rank": 16}, **given))
    found = with_adapters(resolve({"adapters": str(one / "adapters"), "rank": 4}, **given))
    assert found.settings.rank == 4
    folder = read_adapters(one / "adapters")
    write_peft(tmp_path / "peft", replace(folder, config=replace(folder.config, model="base")))
    for flags, wanted in (({}, "base"), ({"model": "mine"}, "mine")):
        found = with_adapters(resolve({"adapters": str(tmp_path / "peft"), **flags}, **given))
        assert (found.settings.model, found.settings.bits, found.settings.rank) == (wanted, 4, 16)
