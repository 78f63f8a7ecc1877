"""The cache: the same bytes as without it, for whatever changed in between."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from forge_cli import mine
from forge_cli.core.jsonl import dump
from forge_cli.core.records import Chunk, Verdict
from forge_cli.mine import mining


def lines(root: Path, cache: Path | None = None, **options: object) -> bytes:
    return b"".join(mine.run(root, cache=cache, **options).lines())  # type: ignore[arg-type]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    (root / "a.py").write_text("def f():\n    return 1\n")
    (root / "b.py").write_text("from a import f\n\n\ndef g():\n    return f()\n")
    (root / "e.py").write_text("")
    (root / "bad.py").write_bytes(b"\xff")
    (root / ".env").write_text("TOKEN=1")
    return root


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were given to be parsed since the list was cleared."""
    seen: list[str] = []
    real = mining.mine_files

    def watched(config, tasks, jobs):  # type: ignore[no-untyped-def]
        seen.extend(task.path for task in tasks)
        return real(config, tasks, jobs)

    monkeypatch.setattr(mining, "mine_files", watched)
    return seen


def age(root: Path) -> None:
    """As if the files had been written long before they were mined."""
    for file in root.rglob("*"):
        if file.is_file():
            os.utime(file, ns=(10**18, 10**18))


def test_nothing_is_parsed_twice(repo: Path, tmp_path: Path, parsed: list[str]) -> None:
    age(repo)
    first = lines(repo, tmp_path / "c")
    assert first == lines(repo) and first.count(b'"called_by":["g"]') == 1
    parsed.clear()
    verdicts: list[Verdict] = []
    assert lines(repo, tmp_path / "c", on_reject=verdicts.append) == first
    assert parsed == []
    assert {v.path for v in verdicts} == {"bad.py", ".env"}


@pytest.mark.parametrize("links", [True, False])
def test_only_what_changed_is_parsed(
    repo: Path, tmp_path: Path, parsed: list[str], links: bool
) -> None:
    age(repo)
    lines(repo, tmp_path / "c", links=links)
    (repo / "b.py").write_text(
        "from a import f\n\n\ndef h():\n    return f()\n"
    )  # as long as before
    (repo / "new.py").write_text("def k():\n    return h()\n")
    (repo / "e.py").unlink()
    parsed.clear()
    again = lines(repo, tmp_path / "c", links=links)
    assert parsed == ["b.py", "new.py"]
    assert again == lines(repo, links=links)
    parsed.clear()
    age(repo)
    assert lines(repo, tmp_path / "c", links=links) == again
    assert not {"a.py", "b.py", "new.py"} & set(parsed), "known by content"


def test_a_commit_changes_what_the_chunks_say(repo: Path, tmp_path: Path) -> None:
    def git(*args: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(repo), *who, *args], check=True, capture_output=True)

    git("init", "-q")
    before = lines(repo, tmp_path / "c")
    git("add", "-A")
    git("commit", "-qm", "Begin")
    after = lines(repo, tmp_path / "c")
    assert after != before and b'"history":["Begin"]' in after
    assert after == lines(repo)


def test_other_options_and_folders_do_not_meet(repo: Path, tmp_path: Path) -> None:
    (repo / "sub").mkdir()
    (repo / "sub" / "s.py").write_text("def s():\n    return f()\n")
    cache = tmp_path / "c"
    for _ in range(2):
        assert lines(repo, cache, max_chars=60) == lines(repo, max_chars=60)
        assert lines(repo, cache) == lines(repo)
        assert lines(repo / "sub", cache) == lines(repo / "sub")
        assert lines(repo, cache, langs=["markdown", "python"]) == lines(
            repo, langs=["markdown", "python"]
        )


def test_a_broken_cache_is_made_again(repo: Path, tmp_path: Path, parsed: list[str]) -> None:
    cache = tmp_path / "c"
    whole = lines(repo, cache)
    kinds = {file.suffix for file in cache.rglob("*") if file.is_file()}
    assert kinds == {".json", ".lines", ".facts"}
    for suffix in sorted(kinds):
        for file in cache.rglob(f"*{suffix}"):
            file.write_bytes(file.read_bytes()[:-7])
        parsed.clear()
        assert lines(repo, cache) == whole
        assert "a.py" in parsed, suffix
    assert len([f for f in cache.rglob("*") if f.is_file()]) == 3, "what was replaced is dropped"


def test_a_place_that_cannot_be_written_costs_only_the_cache(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("a file")
    assert lines(repo, tmp_path / "c") == lines(repo)


def test_secret_files_are_not_opened_for_their_content(repo: Path, tmp_path: Path) -> None:
    lines(repo, tmp_path / "c")
    (repo / ".env").write_text("TOKEN=2")
    (repo / ".env").chmod(0)
    lines(repo, tmp_path / "c")
    assert b"TOKEN" not in b"".join(f.read_bytes() for f in (tmp_path / "c").rglob("*.*"))


def test_lines_are_the_records_as_they_are_dumped(repo: Path) -> None:
    """The end of each line is written apart from its head: no field may get lost between."""
    (repo / "ü.py").write_text('from a import f\n\n\ndef ö():\n    """Größe \\" "]."""\n    f()\n')
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for args in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", 'Ändere "alles" \u2028']):
        subprocess.run(["git", "-C", str(repo), *args], check=True)
    for links in (True, False):
        written = lines(repo, links=links).splitlines(keepends=True)
        chunks = [Chunk.model_validate_json(line) for line in written]
        assert [dump(chunk) for chunk in chunks] == written
        assert all(chunk.history and chunk.commit for chunk in chunks)
    assert any("ö" in c.called_by for c in mine.run(repo))


def test_a_cache_that_another_run_replaces_stays_readable(repo: Path, tmp_path: Path) -> None:
    age(repo)
    whole = lines(repo, tmp_path / "c")
    waiting = mine.run(repo, cache=tmp_path / "c")
    (repo / "a.py").write_text("def f():\n    return 2\n")
    lines(repo, tmp_path / "c")
    (repo / "a.py").write_text("def f():\n    return 1\n")
    assert b"".join(waiting.lines()) == whole


def test_what_gitattributes_leave_out_does_not_slow_the_rest(
    repo: Path, tmp_path: Path, parsed: list[str]
) -> None:
    (repo / ".gitattributes").write_text("b.py linguist-generated\n")
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    age(repo)
    first = lines(repo, tmp_path / "c")
    verdicts: list[Verdict] = []
    parsed.clear()
    assert lines(repo, tmp_path / "c", on_reject=verdicts.append) == first and parsed == []
    assert ("b.py", "generated") in {(v.path, v.check) for v in verdicts}
