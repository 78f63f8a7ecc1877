"""The whole way, for real, on a tiny random model: pipe, resume, export, deploy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from hub_server import TOKEN, HubServer
from ollama_server import OllamaServer
from tiny_train import save_model

FORGE = [sys.executable, "-m", "forge_cli"]
# Where a run is not about how it is judged.
JUDGED_BRIEFLY = {"FORGE_SIDES": "[base, tuned]", "FORGE_CONDITIONS": "[given]"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository, a tiny model and a config that names it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "repo").mkdir()
    for n in range(24):
        (folder / "repo" / f"m{n:02}.py").write_text(
            "\n\n".join(
                f"def job_{n}_{i}(a, b={i}):\n"
                f'    """Does job {n} {i} of it, as told, and hands on what came of it."""\n'
                f"    found = a * {n} + b\n    return found\n"
                for i in range(3)
            )
        )
    save_model(folder / "model", max_position_embeddings=8192)
    (folder / "forge.yaml").write_text(
        f"model: {folder / 'model'}\nmax_tokens: 4096\nrank: 4\nlayers: 0\ndistractors: 1\n"
        "questions: 2\nsteps: 6\nvalid_every: 2\nvalid_rows: 4\neval_rows: 12\nanswer_rows: 4\n"
        "quant: [f16]\n"
    )
    return folder


def run(place: Path, *args: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FORGE, *args],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def last_run(stdout: str) -> dict[str, object]:
    records = [json.loads(line) for line in stdout.splitlines()]
    assert [r["record"] for r in records] == ["run", "end"]
    return dict(records[0])


def test_one_command_then_export_and_deploy(place: Path) -> None:
    done = run(place, "train", "repo")
    assert done.returncode == 0, done.stderr
    record = last_run(done.stdout)
    loss = record["metrics"]["eval"]["raft"]["answer_loss"]  # type: ignore[index]
    assert {"base", "tuned", "difference", "low", "high", "n", "clusters", "verdict"} <= set(loss)
    assert "verdict: not enough samples" in done.stderr
    assert "answer_loss" in done.stderr and "next: forge export" in done.stderr
    folder = place / ".forge" / "runs" / "repo"
    for name in ("run.json", "metrics.jsonl", "data/chunks.jsonl", "eval/raft.jsonl"):
        assert (folder / name).is_file()
    assert (place / ".forge" / ".gitignore").read_text() == "*\n"

    again = run(place, "train", "repo")
    assert again.returncode == 0 and "already trained" in again.stderr
    other = run(place, "train", "repo", "--rank", "2")
    assert other.returncode == 2 and "rank 4 → 2" in other.stderr

    judged = run(place, "eval", str(folder), "--gate", "raft.answer_loss.n >= 5")
    assert judged.returncode == 0 and "already judged" in judged.stderr
    gate = "raft.answer_f1.low > 2"
    refused = run(place, "eval", str(folder), "--gate", gate, "--gate", "verdict is better")
    assert refused.returncode == 3 and f"2 of 2 gates: {gate}: it is " in refused.stderr
    assert not refused.stdout, "a gate that fails sends nothing on"
    unread = run(place, "eval", str(folder), "--gate", "better")
    assert unread.returncode == 2 and "cannot be read" in unread.stderr
    assert (folder / "eval" / "report.html").is_file()

    push = [
        "--to",
        "gguf",
        "--to",
        "safetensors",
        "--push",
        "me/tiny",
        "--importance-rows",
        "3",
        "--quant",
        "f16",
        "--quant",
        "q4_k_m",
    ]
    with HubServer() as hub:
        told = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        exported = run(place, "export", str(folder), *push, env=os.environ | told)
        assert exported.returncode == 0, exported.stderr
    pushed = hub.repos["me/tiny"]
    assert pushed.private and pushed.commits == 1 and "pushed: " in exported.stderr
    for name in ("repo-f16.gguf", "repo-safetensors/model.safetensors"):
        file = folder / "export" / name
        assert pushed.files[file.name] == file.read_bytes()
    assert str(place).encode() not in b"".join(pushed.files.values())
    card = pushed.files["README.md"].decode()
    assert "| repo-f16.gguf | f16 | " in card and "| documents as given | answer loss | " in card
    assert "prompt tokens equal, prompt equal byte for byte, " in exported.stderr
    told = GGUFReader(folder / "export" / "repo-f16.gguf").fields
    assert told["forge.repository"].contents() == "repo"
    adapters = (folder / "adapters" / "adapters.safetensors").read_bytes()
    assert told["forge.adapters_sha256"].contents() == hashlib.sha256(adapters).hexdigest()
    assert "quantize.imatrix.chunks_count" not in told
    small = GGUFReader(folder / "export" / "repo-q4_k_m.gguf").fields
    assert small["quantize.imatrix.chunks_count"].contents() == 3
    facts = last_run(exported.stdout)["metrics"]["export"]  # type: ignore[index]
    parity, kept = facts["parity.f16"], facts["retention.f16"]
    assert parity["tokens_equal"] and parity["top1_agreement"] >= 0.995
    assert parity["prompts_equal"] and parity["perplexity_ratio"] == pytest.approx(1, abs=1e-3)
    assert kept["share"] == pytest.approx(1, abs=0.02) and kept["n"] >= 12
    assert "f16: keeps 100% [" in exported.stderr

    dry = run(place, "deploy", str(folder), "--name", "tiny", "--dry-run")
    assert dry.returncode == 0 and (folder / "export" / "Modelfile").is_file()
    absent = run(place, "deploy", str(folder), "--name", "tiny", "--host", "http://127.0.0.1:9")
    assert absent.returncode == 1 and "no Ollama server" in absent.stderr
    assert (folder / "export" / "Modelfile").is_file()

    with OllamaServer() as ollama:
        name = ["--name", "tiny", "--host", ollama.url]
        data = {**os.environ, "FORGE_DATA": str(place / "data")}
        served = run(place, "deploy", str(folder), *name, env=data)
        assert served.returncode == 0, served.stderr
        version = last_run(served.stdout)["metrics"]["deploy"]["version"]  # type: ignore[index]
        assert f"tiny:latest is {version} now" in served.stderr
        assert ollama.models.keys() == {"tiny:latest", version}
        listed = run(place, "deploy", "--versions", *name, env=data)
        assert f"{version} (served)" in listed.stderr and " repo\n" in listed.stderr
        first = run(place, "deploy", "--rollback", *name, env=data)
        assert first.returncode == 1 and "no version before" in first.stderr


def test_the_smallest_file_that_keeps_enough(place: Path) -> None:
    folder = place / ".forge" / "runs" / "repo"
    done = run(place, "export", str(folder), "--quant", "auto")
    assert done.returncode == 0, done.stderr
    record = last_run(done.stdout)
    chosen = done.stderr.split("auto: ")[-1].split()[0]
    kept = record["metrics"]["export"][f"retention.{chosen}"]  # type: ignore[index]
    assert kept["share"] >= 0.95
    paths = [Path(file) for file in record["files"]]  # type: ignore[attr-defined]
    files = {path.stem.rsplit("-", 1)[1] for path in paths if path.suffix == ".gguf"}
    assert files == {"f16", chosen}, "those that kept too little are gone"
    assert {file.name for file in (folder / "export").glob("*.gguf*")} == {
        f"repo-{name}.gguf" for name in files
    }
    picture = (folder / "export" / "retention.svg").read_text()
    assert ">f16<" in picture and f">{chosen}<" in picture
    beside = run(place, "export", str(folder), "--quant", "auto", "--quant", "f16")
    assert beside.returncode == 2 and "no other type beside it" in beside.stderr


def test_several_suites_at_once(place: Path) -> None:
    folder = place / ".forge" / "runs" / "repo"
    suites = ["--suite", "raft", "--suite", "completion", "--suite", "latency"]
    humaneval = ["--suite", "humaneval", "--execute", "--samples", "2"]
    rows = ["--answer-rows", "2", "--condition-rows", "2", "--condition", "given"]
    only = ["completion", "perplexity", "latency", "humaneval"]
    conditions = [part for name in only for part in ("--condition", name)]
    args = [*suites, *humaneval, *rows, *conditions, "--side", "base", "--side", "tuned"]
    done = run(place, "eval", str(folder), *args)
    assert done.returncode == 0, done.stderr
    found = last_run(done.stdout)["metrics"]["eval"]  # type: ignore[index]
    assert {
        "raft": "answer_f1", "completion": "edit_similarity", "perplexity": "loss",
        "humaneval": "pass@1", "latency": "token_seconds",
    }.items() <= {(suite, name) for suite, own in found.items() for name in own}  # fmt: skip
    page = (folder / "eval" / "report.html").read_text()
    for part in ("By the clock", "How it was trained", "of 2 answers", "--suite latency"):
        assert part in page
    card = (folder / "eval" / "model-card.md").read_text()
    assert "not enough samples" in card


def test_ctrl_c_and_again(place: Path) -> None:
    args = [*FORGE, "train", "repo", "--run", "stopped", "--steps", "60"]
    options: Any = {"cwd": place, "env": os.environ | JUDGED_BRIEFLY}
    process = subprocess.Popen(args, stderr=subprocess.PIPE, stdout=subprocess.PIPE, **options)
    metrics = place / "stopped" / "metrics.jsonl"
    for _ in range(1200):
        rows = metrics.read_text().splitlines() if metrics.exists() else []
        if sum('"learning_rate"' in row for row in rows) >= 3 or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    # Whether within a step or after one is a matter of time.
    assert b"the same command goes on from" in stderr and b"Traceback" not in stderr
    again = subprocess.run(args, capture_output=True, text=True, check=False, **options)
    assert again.returncode == 0, again.stderr
    assert "resuming after step" in again.stderr
    steps = [
        json.loads(row)["step"]
        for row in metrics.read_text().splitlines()
        if "learning_rate" in row
    ]
    assert steps == list(range(1, 61))


def test_what_was_committed_after_training_is_asked(place: Path) -> None:
    repo = place / "dated"
    shutil.copytree(place / "repo", repo)
    commit(repo, "2026-01-01")
    sides = ["--side", "tuned", "--side", "base"]
    # The suite asks what it needs, whatever the run was asked.
    brief = os.environ | JUDGED_BRIEFLY
    assert run(place, "train", "dated", "--steps", "2", env=brief).returncode == 0
    folder = place / ".forge" / "runs" / "dated"
    none = run(place, "eval", str(folder), "--suite", "time", *sides)
    assert none.returncode == 0, none.stderr
    assert "0 chunks of files that were committed" in none.stderr
    assert "verdict: not enough samples" in none.stderr

    old = (repo / "m00.py").read_text()
    (repo / "m00.py").write_text(old + "# The end.\n")  # what was there is not new
    (repo / "late.py").write_text(
        'def late(when, limit=7):\n    """Decides whether it is too late."""\n'
        "    if when > limit:\n        raise ValueError(when)\n    return limit\n"
    )
    commit(repo, "2026-02-02")
    done = run(place, "eval", str(folder), "--suite", "time", *sides)
    assert done.returncode == 0, done.stderr
    assert "already judged" not in done.stderr
    rows = [json.loads(line) for line in (folder / "eval/raft.jsonl").read_text().splitlines()]
    assert rows and {row["condition"] for row in rows} == {"later"}
    assert {row["path"] for row in rows} == {"late.py"}
    assert all({"base", "tuned"} == set(row["sides"]) for row in rows)
    shutil.rmtree(repo)
    gone = run(place, "eval", str(folder), "--suite", "time", *sides)
    assert gone.returncode == 2 and "to look for later commits in" in gone.stderr


def commit(repo: Path, day: str) -> None:
    env = os.environ | dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"{day}T00:00:00Z")
    name = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    for args in (["init", "-q"], ["add", "-A"], [*name, "commit", "-qm", "work"]):
        subprocess.run(["git", *args], cwd=repo, env=env, check=True)


def test_dry_run_writes_nothing(place: Path) -> None:
    done = run(place, "train", "repo", "--run", "planned", "--dry-run")
    assert done.returncode == 0 and "would train" in done.stderr
    assert not (place / "planned").exists()


def test_rows_without_splits_are_refused(place: Path) -> None:
    run(place, "mine", "repo", "-o", "c.jsonl")
    run(place, "raft", "c.jsonl", "-o", "e.jsonl")
    done = run(place, "train", "e.jsonl")
    assert done.returncode == 1 and "run forge validate first" in done.stderr


def test_examples_run(place: Path) -> None:
    """Each shipped example is run; here on the tiny model through the same settings."""
    root = Path(__file__).parents[2]
    env = os.environ | JUDGED_BRIEFLY
    env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    runs = [
        ["bash", str(script), "repo"]
        for script in sorted((root / "examples").glob("*.sh"))
        if script.name != "demo.sh"  # minutes long: `make demo`
    ]
    runs += [["make", "-f", str(root / "examples" / "Makefile"), "REPO=repo"]]
    for args in runs:
        done = subprocess.run(args, cwd=place, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if args[1].endswith("pipe.sh"):
            record = last_run(done.stdout)
            assert record["metrics"]["deploy"]["dry_run"] is True  # type: ignore[index]
            assert "answer_loss" in done.stderr
    again = subprocess.run(runs[-1], cwd=place, env=env, capture_output=True, text=True, check=True)
    assert "forge" not in again.stdout, "nothing changed, so no stage may run again"
