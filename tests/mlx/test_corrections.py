"""Corrected answers: learned by DPO, on the adapters that training left, once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from forge_cli.core.config import Resolved, resolve
from forge_cli.core.events import SILENT
from forge_cli.core.jsonl import read_records, write_records
from forge_cli.core.records import Message, Origin, Preference
from forge_cli.core.run_dir import RunDir
from forge_cli.evaluate.sides import SideSpec, open_side
from forge_cli.pipeline import train
from forge_cli.pipeline.update import learn_corrections
from forge_cli.pipeline.update.corrections import latest, unshown
from tiny_train import examples, save_model

PROMPT = [Message(role="user", content="What is the limit?")]


def pair(number: int) -> Preference:
    return Preference(
        messages=PROMPT,
        chosen="##Answer: seven and no more",
        rejected="##Answer: nobody can know that",
        origin=Origin(kind="correction", chunk="c", path=f"f{number}.py"),
        split="valid" if number % 5 == 1 else "train",
    )


@pytest.fixture
def trained(tmp_path: Path) -> tuple[RunDir, Resolved, Path]:
    model = save_model(tmp_path / "model", max_position_embeddings=8192)
    flags = {
        "model": str(model), "rank": 4, "layers": 0, "steps": 2, "learning_rate": 1e-2,
        "valid_every": 2, "max_tokens": 4096, "cache": False,
    }  # fmt: skip
    resolved = resolve(flags, project=tmp_path, environ={})
    write_records(examples(), tmp_path / "examples.jsonl")
    run = train(str(tmp_path / "examples.jsonl"), resolved, run=tmp_path / "run")
    (tmp_path / "repo" / ".forge").mkdir(parents=True)
    return run, resolved, tmp_path / "repo"


def margin(run: RunDir) -> float:
    """By how many nats a token the corrected answer is likelier."""
    side = open_side(SideSpec.parse("tuned"), run.path / "adapters", url=None, max_tokens=8)
    chats = [
        [*PROMPT, Message(role="assistant", content=text)]
        for text in (pair(0).chosen, pair(0).rejected)
    ]
    chosen, rejected = side.losses(chats) or (0.0, 0.0)
    side.close()
    return rejected - chosen


def test_a_correction_moves_the_model(trained: tuple[RunDir, Resolved, Path]) -> None:
    run, resolved, repo = trained
    before, adapters = margin(run), (run.path / "adapters/adapters.safetensors").read_bytes()
    pairs = [pair(number) for number in range(6)]
    write_records(pairs, repo / ".forge" / "corrections.jsonl")
    assert learn_corrections(run, repo, resolved.settings, SILENT) == 6
    assert margin(run) > before + 0.01
    after = (run.path / "adapters/adapters.safetensors").read_bytes()
    assert after != adapters
    # More that come later are for the next run.
    write_records([*pairs, pair(7)], repo / ".forge" / "corrections.jsonl")
    again = RunDir.load(run.path)
    assert learn_corrections(again, repo, resolved.settings, SILENT) == 6
    assert (run.path / "adapters/adapters.safetensors").read_bytes() == after


@pytest.mark.parametrize("pairs", [0, 1])
def test_too_few_wait(trained: tuple[RunDir, Resolved, Path], pairs: int) -> None:
    run, resolved, repo = trained
    adapters = (run.path / "adapters/adapters.safetensors").read_bytes()
    if pairs:
        write_records([pair(0)], repo / ".forge" / "corrections.jsonl")
    assert learn_corrections(run, repo, resolved.settings, SILENT) == pairs
    assert (run.path / "adapters/adapters.safetensors").read_bytes() == adapters


def asked(question: str, chosen: str, split: Literal["train", "valid"], text: str) -> Preference:
    content = f"[1] a.py: f\n{text}\n\nQuestion: {question}"
    messages = [Message(role="user", content=content)]
    return pair(0).model_copy(update={"messages": messages, "chosen": chosen, "split": split})


def test_the_last_answer_to_a_question_counts_and_what_was_shown_is_not_judged(
    tmp_path: Path,
) -> None:
    run = RunDir.open(tmp_path / "run", {}, source=str(tmp_path))
    first, second = examples()[0], examples()[-1]
    shown = next(d.text for d in first.documents if d.oracle)
    given = [
        asked("a?", "one", "train", shown), asked("b?", "two", "valid", "x"),
        asked("a?", "three", "train", "y = 1"), asked("c?", "four", "train", "z"),
        asked("b?", "five", "train", "x"),
    ]  # fmt: skip
    file = tmp_path / ".forge" / "corrections.jsonl"
    file.parent.mkdir()
    write_records(given, file)
    kept = latest(read_records(file, Preference))
    assert [one.chosen for one in kept] == ["three", "four", "five"]
    assert {one.split for one in kept} == {"train", "valid"}, "both are needed"
    assert unshown(run, [first, second]) == [first, second], "nothing is learned yet"
    write_records(given, run.file("data", "corrections.jsonl"))
    assert unshown(run, [first, second]) == [second]
