"""What changed between two minings: by what stands there, not by where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_cli import mine
from forge_cli.core.records import Chunk
from forge_cli.pipeline.update import Changes, Count, changes

FILES = {
    "a.py": '"""A."""\n\nimport os\n\n\ndef one(x):\n    return x + 1\n\n\n'
    "def two(x):\n    return x + 2\n",
    "b.py": "def three(x):\n    return x + 3\n\n\ndef four(x):\n    return x + 4\n",
    "guide.md": "# Guide\n\nRun it.\n",
}


def mined(folder: Path, files: dict[str, str]) -> list[Chunk]:
    for file in folder.iterdir():
        file.unlink()
    for name, text in files.items():
        (folder / name).write_text(text)
    return list(mine.run(folder, max_chars=200))


def compare(folder: Path, **now: str | None) -> Changes:
    """FILES against the same with files replaced (None: deleted)."""
    old = mined(folder, FILES)
    named = {name.replace("_", "."): text for name, text in now.items()}
    return changes(old, mined(folder, {n: t for n, t in (FILES | named).items() if t is not None}))


def symbols(chunks: list[Chunk]) -> list[str | None]:
    return [chunk.symbol for chunk in chunks]


def test_lines_that_only_shift_are_no_change(tmp_path: Path) -> None:
    found = compare(tmp_path, a_py="# A comment.\n\n\n" + FILES["a.py"])
    assert not found.added and not found.gone and not found.moved
    assert [new.symbol for _, new in found.changed] == [None], "the gap that got the comment"
    assert symbols(found.unchanged)[:2] == ["one", "two"]
    one = found.unchanged[0]
    assert found.before[one.id].symbol == "one" and found.before[one.id].id != one.id
    assert found.counts["code"] == Count(unchanged=4) and found.counts["code"].share == 0
    assert found.counts["text"] == Count(changed=1, unchanged=1)
    assert found.share == pytest.approx(1 / 6)


def test_lines_that_end_otherwise_are_no_change(tmp_path: Path) -> None:
    old = mined(tmp_path, FILES)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    now = list(mine.run(tmp_path, max_chars=200))
    assert all("\r\n" in chunk.text for chunk in now)
    found = changes(old, now)
    assert found.share == 0 and len(found.unchanged) == len(now) == len(old)


def test_each_kind_of_change_is_told_apart(tmp_path: Path) -> None:
    moved = "def one(x):\n    return x + 1\n"
    found = compare(
        tmp_path,
        a_py='"""A."""\n\nimport os\n\n\ndef two(x):\n    return x * 2\n',
        b_py="def three(x):\n    return x + 3\n\n\ndef five(x):\n    return x + 5\n",
        c_py=moved,
    )
    assert symbols(found.added) == ["five"] and symbols(found.gone) == ["four"]
    assert [(old.text[-6:], new.text[-6:]) for old, new in found.changed] == [
        ("x + 2\n", "x * 2\n")
    ]
    assert [(c.path, c.symbol, found.before[c.id].path) for c in found.moved] == [
        ("c.py", "one", "a.py")
    ]
    assert found.counts["code"] == Count(added=1, changed=1, gone=1, moved=1, unchanged=1)
    assert found.counts["code"].share == pytest.approx(3 / 5)
    assert changes([], []).share == 0


def test_a_definition_in_parts_counts_once(tmp_path: Path) -> None:
    body = "".join(f"    x = x * {n} + {n}  # the step of number {n}\n" for n in range(20))
    long = f"def long(x):\n{body}    return x\n"
    old = mined(tmp_path, FILES | {"long.py": long})
    now = mined(tmp_path, FILES | {"long.py": long.replace("x * 19", "x * 190")})
    assert sum(chunk.symbol == "long" for chunk in now) > 3
    found = changes(old, now)
    assert len(found.changed) == 1, "of the parts only the one that differs"
    assert found.counts["code"] == Count(changed=1, unchanged=4)
