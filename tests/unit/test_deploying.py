"""What a run directory brings to its deployment, and the folders for other servers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from test_deploy import Recorder, write_gguf
from test_rollout import files

from forge_cli.core.config import Settings
from forge_cli.core.errors import ForgeError, GateFailed, UsageError
from forge_cli.core.events import SILENT
from forge_cli.core.jsonl import write_records
from forge_cli.core.records import Answer, Example, Quote
from forge_cli.core.run_dir import RunDir
from forge_cli.deploy.directory import write_served
from forge_cli.models.llama_server import LlamaServer
from forge_cli.pipeline.deploying import deploy, exported, smoke_questions
from tiny_train import example

__all__ = ["files"]  # a fixture


def quoting(number: int) -> Example:
    """A test row of a file of its own, whose answer quotes its document."""
    row = example(number, 0, "test")
    document = row.documents[0].model_copy(update={"oracle": True})
    answer = Answer(reason="it is", quotes=[Quote(document=document.id, text=f"quote {number}")],
                    final="x")  # fmt: skip
    origin = row.origin.model_copy(update={"path": f"f{number}.py"})
    update = {"documents": [document], "answer": answer, "origin": origin, "id": f"row{number}"}
    return row.model_copy(update=update)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    found = RunDir.open(tmp_path / "run", {"model": "tiny"}, source="repo")
    write_records([quoting(n) for n in range(6)], found.file("data", "examples.jsonl"))
    return found


def judged(run: RunDir, right: list[int], file: str = "raft.jsonl") -> None:
    """Each row answered with a quote of its own words, surer of the later ones."""
    said = "##Reason: so\n##begin_quote##\nown {}\n##end_quote##\n##Answer: x"
    lines = [
        {"id": f"row{n}", "condition": condition,
         "sides": {"tuned": {"text": said.format(n), "quote_correct": float(n in right),
                             "confidence": n / 10}}}
        for n in range(6) for condition in ("given", "unseen")
    ]  # fmt: skip
    run.file("eval", *file.split("/")).write_text("".join(json.dumps(x) + "\n" for x in lines))


def test_smoke_questions_are_what_the_trained_model_was_seen_to_answer(run: RunDir) -> None:
    (alone,) = smoke_questions(run, 4, 0)
    assert alone.expected == (), "not judged: nothing is known of its answers"
    judged(run, right=[1, 3, 4])
    asked = smoke_questions(run, 4, 0)
    assert {q.expected for q in asked} == {("own 1",), ("own 3",), ("own 4",)}
    assert all(q.messages[-1].role == "user" for q in asked)
    (surest,) = smoke_questions(run, 1, 0)
    assert surest.expected in {("own 3",), ("own 4",)}
    assert smoke_questions(run, 0, 0) == []
    judged(run, right=[])
    assert [q.expected for q in smoke_questions(run, 4, 0)] == [()]
    judged(run, right=[2], file="update/raft.jsonl")
    assert [q.expected for q in smoke_questions(run, 4, 0)] == [("own 2",)], "an update's judge"


def test_a_run_that_got_worse_is_not_deployed(run: RunDir) -> None:
    with pytest.raises(UsageError, match="nothing is exported"):
        exported(run)
    gguf = write_gguf(run.file("export", "run-f16.gguf"))
    run.add_files([str(gguf)])
    run.record(verdict={"outcome": "worse", "reasons": []})
    told = {"name": "x", "dry_run": True}
    with pytest.raises(GateFailed, match="judged worse than its base"):
        deploy(run, Settings(), reporter=SILENT, **told)  # type: ignore[arg-type]
    deploy(run, Settings(), reporter=SILENT, anyway=True, **told)  # type: ignore[arg-type]
    run.record(verdict={"outcome": "not enough samples", "reasons": []})
    recorder = Recorder()
    deploy(run, Settings(), reporter=recorder, **told)  # type: ignore[arg-type]
    assert any("nothing shows that it is better" in note for note in recorder.notes)
    assert run.state["metrics"]["deploy"]["dry_run"] is True


def test_a_folder_for_llama_server_serves(files: dict[str, Path], tmp_path: Path) -> None:
    folder = write_served("llama-server", files["old"], name="me/demo:v1",
                          folder=tmp_path, system="Be brief.")  # fmt: skip
    assert sorted(p.name for p in folder.iterdir()) == [
        "me-demo-v1.gguf", "serve", "system.txt",
    ]  # fmt: skip
    assert (folder / "system.txt").read_text() == "Be brief.\n"
    # The script itself, with a stand-in that says how it was called.
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    path = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    said = subprocess.run([folder / "serve", "--port", "1"], env=path, capture_output=True,
                          text=True, check=True, cwd="/").stdout.split("\n")  # fmt: skip
    assert said[:6] == ["-m", str(folder / "me-demo-v1.gguf"), "--alias", "me/demo:v1", "-c", "512"]
    with LlamaServer(folder / "me-demo-v1.gguf", 256) as runner:
        assert runner.answer([{"role": "user", "content": "f?"}], {"num_predict": 4})
    again = write_served("llama-server", files["new"], name="me/demo:v1", folder=tmp_path,
                         system="Be brief.")  # fmt: skip
    assert (again / "me-demo-v1.gguf").read_bytes() == files["new"].read_bytes()


def test_other_folders(files: dict[str, Path], tmp_path: Path) -> None:
    studio = write_served("lm-studio", files["old"], name="demo", folder=tmp_path, system="s")
    assert sorted(p.name for p in studio.iterdir()) == ["demo.gguf", "system.txt"]
    exported = tmp_path / "a model" / "mlx"
    exported.mkdir(parents=True)
    folder = write_served("mlx", exported, name="m", folder=tmp_path, system="s")
    assert f"mlx_lm.server --model '{exported}'" in (folder / "serve").read_text()
    shutil.rmtree(studio)
    studio.mkdir()
    (studio / "mine").write_text("kept")
    with pytest.raises(ForgeError, match="was not made by Forge"):
        write_served("lm-studio", files["old"], name="demo", folder=tmp_path, system="s")
    with pytest.raises(UsageError, match="no such model"):
        write_served("mlx", tmp_path / "none", name="m", folder=tmp_path, system="s")
