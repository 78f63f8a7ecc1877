"""A deployed run brought up to date: what is asked, what is kept, what is held out."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forge_cli.core.config import Resolved, resolve
from forge_cli.core.errors import UsageError
from forge_cli.core.events import SILENT, Silent, Task
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Chunk, Example
from forge_cli.core.run_dir import RunDir
from forge_cli.evaluate.gates import failing
from forge_cli.pipeline import fit, with_data
from forge_cli.pipeline.update import NothingNew, judge_update, settings_of, update
from forge_cli.pipeline.update.training import prepared as to_train_with
from forge_cli.pipeline.update.updating import with_update
from forge_cli.validate.near import leaking_pairs
from forge_cli.validate.split import NEAR
from tiny_train import save_model

FILES, NEW = 14, ("n1.py", "n2.py", "n3.py", "n4.py", "n5.py")


def code(seed: int, version: int = 0, definitions: int = 3) -> str:
    """A module whose definitions are like those of no other seed."""
    parts = []
    for i in range(definitions):
        draw = random.Random(f"{seed}/{i}/{version if i == 0 else 0}")
        names = ["".join(draw.choices("abcdefghijklm", k=6)) for _ in range(12)]
        parts.append(
            f"def {names[0] if version < 0 else f'job_{seed}_{i}'}(a, b={draw.randrange(99)}):\n"
            f'    """{names[1].capitalize()} the {names[2]} of {names[3]} and {names[4]}."""\n'
            f"    {' = '.join(names[5:10])} = a + b\n    return {names[5]} * {names[6]}\n"
        )
    return "\n\n".join(parts)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository, a run over it, and the repository as it became."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "repo").mkdir()
    for n in range(FILES):
        (folder / "repo" / f"m{n:02}.py").write_text(code(n))
    model = save_model(folder / "model", max_position_embeddings=8192)
    own = settings(model)
    base = RunDir.open(folder / "base", own.identity(), own.origins, source=str(folder / "repo"))
    with_data(base, folder / "repo", own.settings, SILENT)
    fit(base, own.settings, SILENT)
    shutil.copytree(folder / "repo", folder / "later")
    for n in range(0, FILES, 2):
        (folder / "later" / f"m{n:02}.py").write_text("# Moved down.\n\n\n" + code(n, version=1))
    for n, name in enumerate(NEW):
        (folder / "later" / name).write_text(code(100 + n))
    return folder


def settings(model: Path) -> Resolved:
    flags = {
        "model": str(model), "max_tokens": 4096, "rank": 4, "layers": 0, "distractors": 1,
        "questions": 2, "epochs": 0.5, "valid_every": 4, "valid_rows": 4, "eval_rows": 20,
        "answer_rows": 2, "condition_rows": 0, "conditions": ["given"], "resamples": 1000,
        "sides": ["base", "tuned"], "learning_rate": 2e-3, "test_share": 0.3, "cache": False,
        "jobs": 1,
    }  # fmt: skip
    return resolve(flags, project=model, environ={})


@pytest.fixture(scope="module")
def updated(place: Path) -> RunDir:
    return update(RunDir.load(place / "base"), place / "later", place / "run")


def rows(run: Path, split: str) -> list[Example]:
    return [r for r in read_records(run / "data" / "examples.jsonl", Example) if r.split == split]


def plan(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "data" / "update.json").read_text())
    return found


def test_an_update_is_an_ordinary_run_at_less_cost(place: Path, updated: RunDir) -> None:
    record = updated.as_record()
    assert record.model == str(place / "model") and record.metrics["train"]["steps"] > 0
    how = updated.state["update"]
    assert how["mode"] == "incremental" and how["base"] == str(place / "base")
    fresh, replayed = how["counts"]["fresh"], how["counts"]["replayed"]
    least = round(0.2 * len(rows(place / "base", "train")))
    assert fresh > 0 and replayed == max(round(0.25 * fresh), least - fresh) > 0
    rates = [
        json.loads(line)["learning_rate"]
        for line in (updated.path / "metrics.jsonl").read_text().splitlines()
        if "learning_rate" in line
    ]
    assert max(rates) == pytest.approx(1e-3), "half of the full training's"
    base = RunDir.load(place / "base").state["metrics"]["train"]
    assert record.metrics["train"]["rows"] < base["rows"]
    config = json.loads((updated.path / "adapters" / "config.json").read_text())
    assert config["model"] == str(place / "model")


def test_only_what_changed_is_asked_and_only_what_is_true_is_replayed(
    place: Path, updated: RunDir
) -> None:
    now = {c.path: c for c in read_records(updated.path / "data" / "chunks.jsonl", Chunk)}
    assert len(now) == FILES + len(NEW)
    standing = {c.text.strip() for c in read_records(updated.path / "data/chunks.jsonl", Chunk)}
    before = {r.id for r in rows(place / "base", "train")}
    train_rows = rows(updated.path, "train")
    replayed = [r for r in train_rows if r.id in before]
    for row in replayed:
        assert all(d.text.strip() in standing for d in row.documents if d.oracle)
    old_texts = {c.text.strip() for c in read_records(place / "base/data/chunks.jsonl", Chunk)}
    for row in train_rows:
        if row.id not in before:
            about = next(d for d in row.documents if d.oracle) if row.answer.quotes else None
            assert about is None or about.text.strip() not in old_texts
    assert len({r.origin.path for r in replayed}) > 1, "of several files"
    changed = re.compile(rf"job_({'|'.join(map(str, range(0, FILES, 2)))})_0\b")
    stale = {
        r.id
        for split in ("train", "test", "valid")
        for r in rows(place / "base", split)
        if changed.search(r.question)
        and any(d.oracle and d.id == r.origin.chunk for d in r.documents)
    }
    kept = {r.id for split in ("train", "test", "valid") for r in rows(updated.path, split)}
    assert stale and not stale & kept


def test_splits_hold_and_nothing_leaks(place: Path, updated: RunDir) -> None:
    for split in ("train", "test"):
        other = "test" if split == "train" else "train"
        files = {r.origin.path for r in rows(place / "base", split)}
        again = {r.origin.path for r in rows(updated.path, other)} & files
        new = set(plan(updated.path)["new"])
        about = {r.origin.path for r in rows(updated.path, "test") if r.id in new}
        assert again <= about if split == "train" else not again
    trained = [*rows(updated.path, "train"), *rows(place / "base", "train")]
    shown = list({d.text for row in trained for d in row.documents})
    told = [d.text for row in rows(updated.path, "test") for d in row.documents if d.oracle]
    assert told and not leaking_pairs(shown, told, NEAR)


def test_what_is_held_out_once_is_trained_on_next(place: Path, updated: RunDir) -> None:
    owed = plan(updated.path)["owed"]
    assert owed
    held = {r.origin.path for r in rows(updated.path, "test") if r.id in plan(updated.path)["new"]}
    files = plan(updated.path)["files"]
    once = {path for path in held if files[path] == "train"}
    assert once, "some of what is new is held out"
    again = shutil.copytree(place / "later", place / "latest")
    (again / "m01.py").write_text(code(1, version=2))
    run = update(updated, again, place / "next", hold_share=0.0)
    assert once <= {r.origin.path for r in rows(run.path, "train")}
    assert not set(plan(run.path)["owed"]) & set(owed)
    assert plan(run.path)["files"] == files and plan(run.path)["generation"] == 2
    earlier = {r.id for r in read_records(run.path / "data" / "trained.jsonl", Example)}
    before = {r.id for run in (place / "base", updated.path) for r in rows(run, "train")}
    assert before <= earlier | {r.id for r in rows(run.path, "train")}
    assert run.state["update"]["full_rate"] == 2e-3
    assert run.state["update"]["full_epochs"] == 0.5


def test_an_update_makes_the_passes_of_the_full_training(tmp_path: Path) -> None:
    resolved = resolve({"learning_rate": 1e-3}, project=tmp_path, environ={})
    told = {"mode": "incremental", "rate": 0.5, "full_rows": 9}
    base = RunDir.open(tmp_path / "base", resolved.identity(), {}, source="x")
    for passes, known in ((3.5, {}), (3.5, {"full_epochs": 2.0})):
        base.state["update"] = told | known
        base.record(train={"epochs": passes})
        run = RunDir.open(tmp_path / f"run{len(known)}", resolved.identity(), {}, source="x")
        run.state["update"] = dict(told)
        wanted = known.get("full_epochs", passes)
        assert to_train_with(run, base, resolved.settings).epochs == wanted
        assert run.state["update"]["full_epochs"] == wanted


class Stop(Exception):
    """The end of a process, as far as the run directory can tell."""


class Stopping(Silent):
    """Stops when a note says `at`, or after so many steps of training."""

    def __init__(self, at: str = "", steps: int = 0) -> None:
        self.at, self.left = at, steps

    def note(self, message: str) -> None:
        if self.at and self.at in message:
            raise Stop

    @contextmanager
    def task(self, name: str, total: float | None = None) -> Iterator[Task]:
        with super().task(name, total) as task:
            yield self if name == "training" and self.left else task

    def advance(self, amount: float = 1.0, detail: str = "") -> None:
        self.left -= 1
        if not self.left:
            raise Stop

    def resize(self, total: float) -> None:
        pass


def test_stopped_and_called_again_it_ends_in_the_same_bytes(place: Path, updated: RunDir) -> None:
    base, run = RunDir.load(place / "base"), place / "stopped"
    # After mining; among the questions; with all rows sound; before training; within it.
    moments = [*map(Stopping, ("mined", "examples from", "are sound", "rows in")), Stopping("", 2)]
    for reporter in moments:
        with pytest.raises(Stop):
            update(base, place / "later", run, reporter=reporter)
    done = update(base, place / "later", run)
    for name in ("chunks", "examples", "trained", "rejects"):
        ours, theirs = (one / "data" / f"{name}.jsonl" for one in (run, updated.path))
        assert ours.read_bytes() == theirs.read_bytes()
    assert plan(run) == plan(updated.path)
    for file in (updated.path / "adapters").iterdir():
        assert (run / "adapters" / file.name).read_bytes() == file.read_bytes()
    assert done.state["update"] == updated.state["update"]


def test_deployed_and_new_are_compared_on_both(place: Path, updated: RunDir) -> None:
    base = RunDir.load(place / "base")
    s = settings(place / "model").settings
    found = judge_update(updated, base, s)
    again = RunDir.load(updated.path)
    assert again.state["metrics"]["update"] == found
    for name in ("new", "old"):
        loss = found[name]["answer_loss"]
        assert loss["n"] > 0 and loss["verdict"] == "not enough samples"
    gates = ["new.answer_loss is better", "old.answer_loss.high < 5", "new.answer_loss.n >= 1"]
    assert failing(gates, found, "") == [f"{gates[0]}: it is not enough samples"]
    assert judge_update(again, base, s) == found


def test_a_full_training_has_the_same_splits(place: Path, updated: RunDir) -> None:
    run = update(RunDir.load(place / "base"), place / "later", place / "afresh", afresh=True)
    assert {r.id for r in rows(run.path, "test")} == {r.id for r in rows(updated.path, "test")}
    assert len(rows(run.path, "train")) > len(rows(updated.path, "train"))
    assert run.state["settings"]["adapters"] is None
    with pytest.raises(UsageError, match="adapters None → "):
        update(RunDir.load(place / "base"), place / "later", place / "afresh")


def test_without_changes_there_is_nothing_to_train(place: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingNew, match="nothing that changed"):
        update(RunDir.load(place / "base"), place / "repo", tmp_path / "run")


def prepared(base: RunDir, repo: Path, folder: Path, least: float = 0.0) -> RunDir:
    """The data of an update alone."""
    own = settings_of(base)
    run = RunDir.open(folder, own.identity(), own.origins, source=str(repo))
    how = {"mode": "incremental", "replay": 1.0, "hold_share": 0.3, "least_share": least}
    run.state["update"] = how
    with_update(run, base, repo, own.settings, SILENT)
    return run


def test_where_little_is_new_more_old_rows_are_replayed(place: Path, tmp_path: Path) -> None:
    base = RunDir.load(place / "base")
    full = len(rows(base.path, "train"))
    few = prepared(base, place / "later", tmp_path / "few").state["update"]["counts"]
    assert few["replayed"] == few["fresh"] < 0.4 * full, "one for each new one"
    run = prepared(base, place / "later", tmp_path / "more", least=0.8)
    counts = run.state["update"]["counts"]
    assert counts["fresh"] == few["fresh"] and counts["replayed"] > few["replayed"]
    assert len(rows(run.path, "train")) == round(0.8 * full)


def test_a_poisoned_file_is_not_learned_until_it_is_mended(
    place: Path, updated: RunDir, tmp_path: Path
) -> None:
    repo = shutil.copytree(place / "later", tmp_path / "repo")
    files = plan(updated.path)["files"]
    lying, broken = [p for p, split in files.items() if split == "train" and p[0] == "m"][:2]
    sound = (repo / lying).read_text()
    (repo / lying).write_text(re.sub(r'"""(.*)"""', lambda m: f'"""{m[1][::-1]}"""', sound))
    (repo / broken).write_text((repo / broken).read_text() + "\n\ndef late(a, b):\n    return (a\n")
    one = prepared(updated, repo, tmp_path / "one")
    found = one.state["stages"]["raft"]["suspects"]
    assert {s["path"]: s["check"] for s in found} == {lying: "documentation", broken: "syntax"}
    known = {c.text for c in read_records(updated.path / "data" / "chunks.jsonl", Chunk)}
    now = list(read_records(one.path / "data" / "chunks.jsonl", Chunk))
    poison = {c.text for c in now if c.path in (lying, broken)} - known
    shown = [r for split in ("train", "valid", "test") for r in rows(one.path, split)]
    assert len(poison) >= 4 and not poison & {d.text for r in shown for d in r.documents}
    assert set(plan(one.path)["suspected"]) == {lying, broken}

    # As a deployed run: what is still as it was stays suspicious, what is mended is learned.
    one.finish("train")
    (repo / lying).write_text(sound.replace("a + b", "a - b"))
    two = prepared(one, repo, tmp_path / "two")
    assert {s["check"] for s in two.state["stages"]["raft"]["suspects"]} == {"before"}
    assert lying in {r.origin.path for split in ("train", "test") for r in rows(two.path, split)}
    assert set(plan(two.path)["suspected"]) == {broken}
