"""The command line as a user meets it: help, streams, errors, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forge_cli import __version__
from forge_cli.core.config import resolve
from forge_cli.recipes import load_recipe

FORGE = [sys.executable, "-m", "forge_cli"]
COMMANDS = [
    "mine", "raft", "validate", "train", "eval", "export", "deploy", "ask", "serve", "worker",
    "doctor", "jobs ls", "jobs show", "jobs logs", "jobs cancel", "jobs pause", "jobs resume",
    "jobs retry", "jobs rm", "guard init", "guard run", "guard install", "guard uninstall",
    "guard once", "guard status", "guard history", "guard rollback",
]  # fmt: skip


def forge(
    *args: str, cwd: Path, stdin: bytes = b"", **env: str
) -> subprocess.CompletedProcess[bytes]:
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith("FORGE_") or k == "FORGE_CACHE"
    }
    return subprocess.run(
        [*FORGE, *args], cwd=cwd, input=stdin, capture_output=True, env=clean | env, check=False
    )


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    for n in range(8):
        (folder / f"m{n}.py").write_text(
            f'def f{n}(a, b={n}):\n    """Adds {n} to the value given."""\n    return a + b\n\n\n'
            f'def g{n}(x="{n}") -> str:\n    """Joins {n} with a text."""\n    return f{n}(x)\n'
        )
    return folder


def fails(done: subprocess.CompletedProcess[bytes], code: int, *words: str) -> None:
    """One line of cause, one of advice, no traceback, nothing on stdout."""
    error = done.stderr.decode()
    assert done.returncode == code, error
    assert "Traceback" not in error and done.stdout == b""
    lines = [line for line in error.splitlines() if line.startswith(("error: ", "hint: "))]
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], error
    for word in words:
        assert word in error, error


def test_the_version_is_told_without_a_command(tmp_path: Path) -> None:
    told = forge("--version", cwd=tmp_path)
    assert (told.returncode, told.stdout.decode().strip()) == (0, __version__)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, tmp_path: Path) -> None:
    done = forge(*command.split(), "-h", cwd=tmp_path, COLUMNS="100")
    text = done.stdout.decode()
    assert done.returncode == 0 and "Example: forge" in " ".join(text.split())
    assert all(option in text for option in ("--json", "--quiet", "--verbose"))


def test_data_on_stdout_words_on_stderr(repo: Path, tmp_path: Path) -> None:
    done = forge("mine", str(repo), cwd=tmp_path)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["record"] for row in rows[:-1]} == {"chunk"}
    assert rows[-1]["record"] == "end" and rows[-1]["count"] == len(rows) - 1
    assert b"100.00%" in done.stderr and b"\x1b" not in done.stderr
    assert done.stderr.decode().splitlines()[-1].startswith("next: ")
    assert forge("mine", str(repo), "-q", "--no-end", cwd=tmp_path).stderr == b""
    assert b'"end"' not in forge("mine", str(repo), "--no-end", cwd=tmp_path).stdout


def test_notes_as_json(repo: Path, tmp_path: Path) -> None:
    done = forge("mine", str(repo), "--json", cwd=tmp_path)
    assert all(json.loads(line) for line in done.stderr.splitlines())
    broken = forge("mine", "none", "--json", cwd=tmp_path)
    assert set(json.loads(broken.stderr)) == {"error", "hint", "transient"}


def test_a_reader_that_stops_is_no_error(repo: Path, tmp_path: Path) -> None:
    for number in range(300):
        (repo / f"more{number}.py").write_text(f"def h{number}():\n    return '{'x' * 400}'\n")
    script = f"set -o pipefail; {' '.join(FORGE)} mine {repo} | head -1 >/dev/null"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bad_input(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "a.py").write_bytes(b"\0\1")
    (tmp_path / "broken.jsonl").write_text('{"record": "chunk"\n')
    fails(forge("mine", "none", cwd=tmp_path), 2, "none: no such file")
    fails(forge("mine", "empty", cwd=tmp_path), 1, "no files")
    fails(forge("mine", "bin", cwd=tmp_path), 1, "none of 1 files")
    fails(forge("mine", str(repo), "--lang", "klingon", cwd=tmp_path), 2, "klingon")
    fails(forge("raft", "broken.jsonl", cwd=tmp_path), 1, "broken.jsonl:1")
    fails(forge("raft", "none.jsonl", cwd=tmp_path), 2, "none.jsonl")
    fails(forge("raft", "-", cwd=tmp_path, stdin=b""), 1, "without its end record")
    fails(forge("validate", "-", "--model", "smollm", cwd=tmp_path, stdin=b""), 1)
    fails(forge("train", "none", cwd=tmp_path), 2, "none")
    fails(forge("eval", "none", cwd=tmp_path), 2, "not a run directory")
    fails(forge("export", "none", cwd=tmp_path), 2, "not a run directory")
    fails(forge("export", "none", "--public", cwd=tmp_path), 2, "belong to --push")
    fails(forge("deploy", "none.gguf", "--name", "x", cwd=tmp_path), 2, "none.gguf")
    fails(forge("recipes", "show", "demoo", cwd=tmp_path), 2, "did you mean demo?")
    assert forge("train", cwd=tmp_path).returncode == 2
    assert forge("mine", ".", "--bogus", cwd=tmp_path).returncode == 2


def test_bad_settings(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "forge.yaml").write_text("seed: 1\nrnak: 4\n")
    fails(forge("mine", str(repo), cwd=tmp_path), 2, "forge.yaml:2", "did you mean rank?")
    (tmp_path / "forge.yaml").unlink()
    fails(forge("mine", str(repo), cwd=tmp_path, FORGE_RANKK="3"), 2, "FORGE_RANKK")
    done = forge("train", str(repo), "--model", "smolm2-135m", cwd=tmp_path)
    fails(done, 2, "unknown model", "smollm2-135m")
    fails(forge("train", str(repo), "--init", "svd", cwd=tmp_path), 2, "init")


def test_the_service_refuses_what_is_unsafe_or_not_there(tmp_path: Path) -> None:
    home = ("--home", str(tmp_path / "home"), "--workers", "0")
    fails(forge("serve", "--host", "0.0.0.0", *home, cwd=tmp_path), 2, "--token-file")
    fails(forge("serve", "--allow", "none", *home, cwd=tmp_path), 2, "no such folder")
    fails(forge("worker", "--queue", "mysql://x", cwd=tmp_path, HOME=str(tmp_path)), 2, "--queue")
    fails(forge("jobs", "ls", "--url", "http://127.0.0.1:9", cwd=tmp_path), 1, "start forge serve")


def test_a_dead_stage_stops_the_pipe(repo: Path, tmp_path: Path) -> None:
    forge_ = " ".join(FORGE)
    script = f"{forge_} mine {repo} | head -3 | {forge_} raft -o out.jsonl"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1 and b"without its end record" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_a_gate_exits_3(repo: Path, tmp_path: Path) -> None:
    forge("mine", str(repo), "-o", "c.jsonl", cwd=tmp_path)
    forge("raft", "c.jsonl", "-o", "e.jsonl", cwd=tmp_path)
    done = forge("validate", "e.jsonl", "-o", "s.jsonl", "--min-examples", "9999", cwd=tmp_path)
    fails(done, 3, "gate min_examples")
    assert not (tmp_path / "s.jsonl").exists()


def test_settings_show_their_origin(tmp_path: Path) -> None:
    (tmp_path / "forge.yaml").write_text("rank: 4\n")
    text = forge("config", "show", cwd=tmp_path, FORGE_SEED="7").stdout.decode()
    assert "forge.yaml:1" in text and "seed: 7\t# environment FORGE_SEED" in text
    shown = json.loads(forge("config", "show", "--json", "--recipe", "demo", cwd=tmp_path).stdout)
    assert shown["rank"]["value"] == 4 and shown["steps"]["origin"] == "recipe demo"


def test_recipes_are_data(tmp_path: Path) -> None:
    names = [
        line.split("\t")[0]
        for line in forge("recipes", "ls", cwd=tmp_path).stdout.decode().splitlines()
    ]
    assert "demo" in names
    assert forge("recipes", "cp", "demo", "mine.yaml", cwd=tmp_path).returncode == 0
    again = forge("recipes", "cp", "demo", "mine.yaml", cwd=tmp_path)
    fails(again, 2, "is there already")
    for name in names:
        resolve({}, project=tmp_path, recipe=load_recipe(name), recipe_name=name, environ={})


def test_what_left_nothing_to_mine_is_told(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "tool").write_bytes(b"\x7fELF\0")
    done = forge("mine", "repo", "-o", "chunks.jsonl", "--rejects", "why.jsonl", cwd=tmp_path)
    fails(done, 1, "--rejects")
    assert '"check":"binary"' in (tmp_path / "why.jsonl").read_text()
    assert not (tmp_path / "chunks.jsonl").exists()
