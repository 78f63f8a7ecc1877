"""Drift over real git repositories, against a real run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from drifting import NEVER, Trained, chunks_of, git, module, trained_on

from forge_cli.core.errors import ForgeError
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Example, Origin
from forge_cli.core.run_dir import RunDir
from forge_cli.guard.drift import corrections_in, head, measure, remember, tags_in
from forge_cli.guard.drift.rows import held_out, matched
from forge_cli.guard.records import Drift
from forge_cli.guard.state import Deployed, Guarded
from tiny_train import example


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    with trained_on(tmp_path_factory.mktemp("drift")) as found:
        yield found


@pytest.fixture
def guarded(trained: Trained, tmp_path: Path) -> Guarded:
    return trained.copied(tmp_path)


def test_a_line_more_or_another_place_is_no_drift(guarded: Guarded, trained: Trained) -> None:
    same = measure(guarded, trained.deployed, NEVER, trained.s)
    assert (same.share, same.added, same.changed, same.gone, same.paths) == (0, 0, 0, 0, [])
    assert same.commit == same.since == trained.commit and len(same.commit) == 40
    first, last = guarded.repository / "m00.py", guarded.repository / "m17.py"
    first.write_text("\n\n" + first.read_text())
    last.rename(guarded.repository / "job.py")
    moved = measure(guarded, trained.deployed, NEVER, trained.s)
    assert (moved.moved, moved.gone, moved.added, moved.changed) == (3, 0, 0, 0)
    assert (moved.share, moved.symbols, moved.paths) == (0, same.symbols, [])
    assert moved.contents != same.contents


def test_what_differs_is_counted_and_named(guarded: Guarded, trained: Trained) -> None:
    repo = guarded.repository
    symbols = measure(guarded, trained.deployed, NEVER, trained.s).symbols
    (repo / "m01.py").unlink()
    (repo / "m02.py").write_text(module(2).replace("a * 2 + b", "a * 2 - b", 1))
    (repo / "m90.py").write_text(module(90, "task"))
    (repo / "notes.md").write_text("# Notes\n\nAll is done otherwise now.\n")
    git(repo, "add", ".")
    git(repo, "commit", "-q", "-m", "more")
    found = measure(guarded, trained.deployed, NEVER, trained.s)
    assert (found.added, found.changed, found.gone) == (3, 2, 3)
    assert found.symbols == symbols + 3 and found.share == pytest.approx(8 / found.symbols)
    assert found.paths == ["m01.py", "m02.py", "m90.py", "notes.md"]
    assert found.commit == head(repo) != found.since == trained.commit
    assert not found.asked and found.new_loss is None


def test_tags_and_corrections_since_the_last_deployment(
    guarded: Guarded, trained: Trained, tmp_path: Path
) -> None:
    repo = guarded.repository
    git(repo, "checkout", "-q", "-b", "side")
    git(repo, "commit", "-q", "--allow-empty", "-m", "aside")
    git(repo, "tag", "aside")
    git(repo, "checkout", "-q", "main")
    git(repo, "commit", "-q", "--allow-empty", "-m", "on")
    git(repo, "tag", "-a", "release/2", "-m", "annotated")
    git(repo, "tag", "late", trained.commit)  # what stands there was trained on
    (repo / ".forge").mkdir()
    (repo / ".forge" / "corrections.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n{"a": 3}\n{"to')
    found = measure(guarded, trained.deployed, NEVER, trained.s)
    assert found.tags == ["release/2"] and found.corrections == 3 == corrections_in(repo)
    known = Deployed(run=str(trained.run), tags=tags_in(repo), corrections=2)
    again = measure(guarded, known, NEVER, trained.s)
    assert again.tags == [] and again.corrections == 1
    lost = RunDir.load(Path(shutil.copytree(trained.run, tmp_path / "lost")))
    lost.finish("mine", commit="0" * 40)
    assert measure(guarded, Deployed(run=str(lost.path), tags=["v1"]), NEVER, trained.s).tags == [
        "late",
        "release/2",
    ], "of a history that was rewritten all that is not known"
    assert tags_in(repo, "v1") == ["late", "v1"] and tags_in(repo, "nowhere") == []


def test_without_git_and_before_anything_is_deployed(guarded: Guarded, trained: Trained) -> None:
    shutil.rmtree(guarded.repository / ".git")
    found = measure(guarded, trained.deployed, NEVER, trained.s)
    assert (found.commit, found.tags, found.share) == ("", [], 0) and found.since
    first = measure(guarded, None, NEVER, trained.s)
    assert (first.share, first.run, first.since) == (1, "", "")
    assert first.added == first.symbols == found.symbols


def test_a_run_that_is_gone_is_told(guarded: Guarded, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ForgeError, match="run of the deployed model is gone") as told:
        measure(guarded, Deployed(run=str(tmp_path / "none")), NEVER, trained.s)
    assert "state.json" in told.value.hint
    shutil.copytree(trained.run, tmp_path / "half")
    (tmp_path / "half" / "data" / "chunks.jsonl").unlink()
    with pytest.raises(ForgeError, match=r"has no data/chunks\.jsonl"):
        measure(guarded, Deployed(run=str(tmp_path / "half")), NEVER, trained.s)


def test_the_history_answers_for_what_was_seen_before(guarded: Guarded, trained: Trained) -> None:
    found = measure(guarded, trained.deployed, NEVER, trained.s)
    remember(guarded, found)
    remember(guarded, measure(guarded, trained.deployed, NEVER, trained.s))
    assert guarded.drifts() == [found], "the same again is not written again"
    remember(guarded, found.model_copy(update={"gone": 5, "share": 0.4}))
    git(guarded.repository, "commit", "-q", "--allow-empty", "-m", "on")
    git(guarded.repository, "tag", "v2")
    again = measure(guarded, trained.deployed, NEVER, trained.s)
    assert (again.gone, again.share, again.tags) == (5, 0.4, ["v2"]), "nothing is compared anew"
    (guarded.repository / "m03.py").unlink()
    assert measure(guarded, trained.deployed, NEVER, trained.s).gone == 3


def test_old_rows_are_those_that_still_stand(trained: Trained) -> None:
    run, chunks = RunDir.load(trained.run), chunks_of(trained)
    rows = held_out(run, chunks)
    written = read_records(trained.run / "data" / "examples.jsonl", Example)
    assert rows == [row for row in written if row.split == "test"]
    path = next(row.origin.path for row in rows if any(d.oracle for d in row.documents))
    now = [c if c.path != path else c.model_copy(update={"text": c.text + "#"}) for c in chunks]
    fewer = held_out(run, now)
    assert fewer and fewer == [row for row in rows if path not in told_from(row)]


def told_from(row: Example) -> set[str]:
    return {d.path for d in row.documents if d.oracle or d.id == row.origin.chunk}


def test_what_looks_damaged_is_named(guarded: Guarded, trained: Trained) -> None:
    (guarded.repository / "m05.py").write_bytes(b"\x00\x01" * 400)
    (guarded.repository / "m06.py").write_text(module(6).replace("(a, b", "(a, (b"))
    found = measure(guarded, trained.deployed, NEVER, trained.s)
    assert [one.partition(": ")[0] for one in found.suspicious] == ["m05.py", "m06.py"]
    assert found.gone >= 3 and "m05.py" in found.paths


def test_what_was_deleted_is_not(guarded: Guarded, trained: Trained) -> None:
    (guarded.repository / "m05.py").write_text(module(5).partition("\n\n")[0] + "\n")
    assert measure(guarded, trained.deployed, NEVER, trained.s).suspicious == []


def test_a_damaged_file_that_is_deleted_is_mended(guarded: Guarded, trained: Trained) -> None:
    # The same is mined of either, so that the history must not answer for one with the other.
    (guarded.repository / "m03.py").write_bytes(b"\0\0\0")
    damaged = measure(guarded, trained.deployed, NEVER, trained.s)
    assert damaged.suspicious
    remember(guarded, damaged)
    (guarded.repository / "m03.py").unlink()
    assert not measure(guarded, trained.deployed, NEVER, trained.s).suspicious


def test_new_and_old_rows_are_of_the_same_kinds() -> None:
    def row(number: int, kind: str, path: str) -> Example:
        origin = Origin(kind=kind, chunk=path, path=path)
        return example(number, 0, "test").model_copy(update={"origin": origin})

    new = [row(n, "purpose" if n < 5 else "default", f"a{n}") for n in range(8)]
    old = [row(20 + n, "default" if n < 2 else "where", f"b{n}") for n in range(8)]
    found = matched(new, [*old, row(40, "purpose", "c")], 9, 0)
    kinds = [[r.origin.kind for r in part] for part in (found.new, found.old)]
    assert kinds[0] == kinds[1] and sorted(kinds[0]) == ["default", "default", "purpose"]
    assert len(matched(new, new, 4, 0).new) == 4 and matched(new, [], 9, 0).new == []


def test_a_history_of_an_older_form_is_read() -> None:
    found = Drift(time="2026-01-01T00:00:00+00:00", symbols=1, added=0, changed=0, gone=0, share=0)
    bare = found.model_dump(exclude={"run", "contents", "asked"})
    assert Drift.model_validate(bare) == found
