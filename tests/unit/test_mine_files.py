"""Mining: which files are read, which are not, and that each of these is named."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from forge_cli import mine
from forge_cli.core.errors import UsageError
from forge_cli.core.events import Silent
from forge_cli.core.records import Verdict


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def git(root: Path, *args: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *who, "-C", str(root), *args], check=True, capture_output=True)


def look(path: Path, **options: object) -> tuple[set[str], dict[str | None, str]]:
    """Paths that are mined, and path → check of those that are not."""
    verdicts: list[Verdict] = []
    chunks = list(mine.run(path, on_reject=verdicts.append, **options))  # type: ignore[arg-type]
    return {chunk.path for chunk in chunks}, {v.path: v.check for v in verdicts}


def test_a_folder_or_file_of_a_repository_keeps_its_paths_and_commit(tmp_path: Path) -> None:
    write(tmp_path, a_dot_py="x = 1\n", sub__b_dot_py="y = 2\n", sub__c_dot_py="z = 3\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    assert look(tmp_path / "sub")[0] == {"sub/b.py", "sub/c.py"}
    (chunk,) = mine.run(tmp_path / "sub" / "b.py")
    assert (chunk.path, chunk.repo) == ("sub/b.py", tmp_path.name)
    assert chunk.commit is not None and len(chunk.commit) == 40


def test_tracked_files_are_mined_whatever_their_folder_is_called(tmp_path: Path) -> None:
    write(tmp_path, venv__a_dot_py="x = 1\n", build__b_dot_js="let x;\n")
    git(tmp_path, "init", "-q")
    assert look(tmp_path)[0] == {"venv/a.py", "build/b.js"}


def test_an_ignored_folder_is_mined_when_it_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path, _dot_gitignore="env/\n", env__lib__a_dot_py="x = 1\n")
    git(tmp_path, "init", "-q")
    assert look(tmp_path / "env" / "lib")[0] == {"a.py"}


def test_a_submodule_and_a_link_are_named_not_entered(tmp_path: Path) -> None:
    other, top = tmp_path / "other", tmp_path / "top"
    write(other, o_dot_py="x = 1\n")
    write(top, a_dot_py="x = 1\n", d__b_dot_py="x = 1\n")
    git(tmp_path, "init", "-q", str(other))
    git(other, "add", ".")
    git(other, "commit", "-qm", "one")
    git(tmp_path, "init", "-q", str(top))
    git(top, "submodule", "add", "-q", str(other), "mod")
    (top / "link").symlink_to(top / "d")
    paths, rejects = look(top)
    assert paths == {"a.py", "d/b.py"}
    assert rejects == {"mod": "submodule", "link": "symlink", ".gitmodules": "language"}


def test_settings_of_forge_say_nothing_of_the_repository(tmp_path: Path) -> None:
    write(tmp_path, forge_dot_yaml="steps: 3\n", guard_dot_yaml="", sub__guard_dot_yaml="a: 1\n")
    write(tmp_path, a_dot_py="x = 1\n")
    paths, rejects = look(tmp_path)
    assert paths == {"a.py", "sub/guard.yaml"}
    assert rejects == {"forge.yaml": "settings", "guard.yaml": "settings"}


def test_a_git_hook_does_not_point_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, repo__a_dot_py="x = 1\n", hooked__b_dot_py="x = 1\n")
    for name in ("repo", "hooked"):
        git(tmp_path, "init", "-q", str(tmp_path / name))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "hooked" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "hooked"))
    assert look(tmp_path / "repo")[0] == {"a.py"}


def test_without_git_each_gitignore_holds_for_its_folder(tmp_path: Path) -> None:
    write(
        tmp_path,
        _dot_gitignore="*.log.py\n/out/\n",
        a_dot_py="x = 1\n",
        b_dot_log_dot_py="x = 1\n",
        out__c_dot_py="x = 1\n",
        sub__out__d_dot_py="x = 1\n",
        sub___dot_gitignore="local.py\n!keep.log.py\n",
        sub__local_dot_py="x = 1\n",
        sub__keep_dot_log_dot_py="x = 1\n",
        node_modules__e_dot_js="let x;\n",
    )
    wanted = {"a.py", "sub/out/d.py", "sub/keep.log.py"}
    assert look(tmp_path, langs=["python"])[0] == wanted
    git(tmp_path, "init", "-q")
    assert look(tmp_path, langs=["python"])[0] == wanted, "not what git says"


def test_secrets_are_not_opened(tmp_path: Path) -> None:
    names = [".env", ".env.local", "id_rsa", "server.pem", "secrets.yaml", ".npmrc"]
    for name in names:
        # A file that cannot be opened would be named `unreadable` or block: a FIFO.
        os.mkfifo(tmp_path / name)
    (tmp_path / "secrets.py").write_text("x = 1\n")
    (tmp_path / "env.example.toml").write_text("x = 1\n")
    paths, rejects = look(tmp_path)
    assert paths == {"secrets.py", "env.example.toml"}
    assert rejects == dict.fromkeys(names, "secret")


def test_odd_files_are_named(tmp_path: Path) -> None:
    write(tmp_path, ok_dot_py="x = 1\n", kind_dot_xyz="hello\n", empty_dot_py="")
    (tmp_path / "big.py").write_bytes(b"x = 1\n" * 200_000)
    os.mkfifo(tmp_path / "pipe.py")
    (Path(os.fsencode(tmp_path).decode()) / os.fsdecode(b"bad\xff.py")).write_text("x = 1\n")
    paths, rejects = look(tmp_path)
    assert paths == {"ok.py"}
    assert rejects == {
        "big.py": "size",
        "pipe.py": "missing",
        "kind.xyz": "language",
        "bad\\udcff.py": "name",
    }


def test_a_verdict_names_the_range_it_leaves_out(tmp_path: Path) -> None:
    write(tmp_path, ok_dot_py="x = 1\n")
    (tmp_path / "latin.py").write_bytes("# é\n".encode("latin-1"))
    verdicts: list[Verdict] = []
    list(mine.run(tmp_path, on_reject=verdicts.append))
    (verdict,) = verdicts
    assert (verdict.start_byte, verdict.end_byte) == (0, 4)
    assert verdict.reason == "not UTF-8 at byte 2"


def test_the_coverage_counts_text_that_is_in_no_chunk(tmp_path: Path) -> None:
    write(tmp_path, a_dot_py="x = 1\n" * 50, b_dot_xyz="hello\n" * 50)
    (tmp_path / "c.bin").write_bytes(b"\0" * 100)
    notes: list[str] = []

    class Listener(Silent):
        def note(self, message: str) -> None:
            notes.append(message)

    list(mine.run(tmp_path, reporter=Listener()))
    assert notes == [
        "mined 1 files into 1 chunks: 50.00% of 0.00 MB; 2 files rejected (1 binary, 1 language)"
    ]


def test_a_limit_that_cannot_hold_a_line_is_refused(tmp_path: Path) -> None:
    write(tmp_path, a_dot_py="x = 1\n")
    with pytest.raises(UsageError, match="max_chars 3"):
        list(mine.run(tmp_path, max_chars=3))


def test_a_chunk_survives_json(tmp_path: Path) -> None:
    write(tmp_path, a_dot_py='s = "\u2028 \\ud800 \U0001f389"\n')
    (chunk,) = mine.run(tmp_path)
    assert json.loads(chunk.model_dump_json())["text"] == chunk.text
