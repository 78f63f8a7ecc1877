"""Damaged and lying files are told from honest changes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from forge_cli import mine
from forge_cli.core.records import Chunk, Verdict
from forge_cli.mine.grammar import parse
from forge_cli.pipeline.update import changes, suspects
from forge_cli.pipeline.update.suspects import doubtful_docs

HEAD = '"""Orders."""\n\nimport os\n\n\n'
DOCS = [
    "Add an order to the queue of those that wait.",
    "Remove the order that waits longest.",
    "Count what waits, whoever asked for it.",
    "Send all that waits to the printer.",
    "Close the queue for the night.",
]
LIES = [
    "Return a random colour between black and white.",
    "Delete every file below the home folder.",
    "Parse a date in the form of RFC 3339.",
    "Compile the regular expression of a name.",
    "Open a socket and listen on port eighty.",
]


def code(docs: list[str], factor: int = 2) -> str:
    parts = [
        f'def job_{n}(order, size={n}):\n    """{text}"""\n    weight = size * {factor} + {n}\n'
        f"    return os.path.join(order, str(weight))\n"
        for n, text in enumerate(docs)
    ]
    return HEAD + "\n\n".join(parts)


def mined(folder: Path) -> tuple[list[Chunk], list[Verdict]]:
    verdicts: list[Verdict] = []
    return list(mine.run(folder, on_reject=verdicts.append)), verdicts


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "orders.py").write_text(code(DOCS))
    (tmp_path / "other.py").write_text("def other(a):\n    return a\n")
    return tmp_path


SOUND = code(DOCS)
AFTER = {
    "binary": (b"\x89PNG\r\n\0\0" + SOUND.encode(), {"damaged"}),
    "latin": (SOUND.encode() + b"# caf\xe9\n", {"damaged"}),
    "half": (SOUND[: SOUND.index("job_2(") + 12].encode(), {"syntax", "vanished"}),
    "errors": (SOUND.replace("):", ") {").encode(), {"syntax", "vanished"}),
    "emptied": (HEAD.encode() + b"def job_0(order):\n    return order\n", {"vanished"}),
    "lies": (code(LIES).encode(), {"documentation"}),
    "false parameters": (
        code([f"{d}\n\n    Args:\n        colour: of it.\n    " for d in DOCS], 3).encode(),
        {"documentation"},
    ),
    # Honest work.
    "new code": (code(DOCS, 3).encode(), set()),
    "new code and documentation": (code(LIES, 3).encode(), set()),
    "one docstring": (code([LIES[0], *DOCS[1:]]).encode(), set()),
    "better docstrings": (code([f"{d[:-1]}, at once." for d in DOCS]).encode(), set()),
    "true parameters": (
        code([f"{d}\n\n    Args:\n        order: what.\n    " for d in DOCS], 3).encode(), set(),
    ),
    "deleted": (None, set()),
}  # fmt: skip


@pytest.mark.parametrize("name", AFTER)
def test_what_is_wrong_with_a_file(repo: Path, name: str) -> None:
    old, _ = mined(repo)
    data, expected = AFTER[name]
    if data is None:
        (repo / "orders.py").unlink()
    else:
        (repo / "orders.py").write_bytes(data)
    now, left_out = mined(repo)
    found = suspects(old, now, changes(old, now), left_out)
    assert {one.check for one in found} == expected
    assert all(one.path == "orders.py" and one.reason for one in found)


def test_few_lies_refuse_nothing_and_are_named(repo: Path) -> None:
    old, _ = mined(repo)
    (repo / "orders.py").write_text(code([LIES[0], *DOCS[1:]]))
    other = (
        'def other(a):\n    """Give it back.\n\n    :param colour: of it.\n    """\n    return a\n'
    )
    (repo / "other.py").write_text(other)
    now, left_out = mined(repo)
    found = changes(old, now)
    assert suspects(old, now, found, left_out) == []
    assert doubtful_docs(found) == [
        "orders.py: job_0 has other documentation on the same code",
        "other.py: other documents parameters that are not there",
    ]
    (repo / "orders.py").write_text(code(LIES))
    now, left_out = mined(repo)
    found = changes(old, now)
    doubts = suspects(old, now, found, left_out)
    assert doubts and len(doubtful_docs(found, doubts)) == 1, "its file is named as a whole"


PLAIN = (
    "class A {\n public:\n  int size() { return 1; }\n};\n\nint twice(int a) { return 2 * a; }\n"
)
MACRO = PLAIN.replace("class A", "class FORGE_API(1) A").replace("int twice", "BEGIN_C\nint twice")


@pytest.mark.parametrize(("after", "expected"), [(MACRO, set()), (PLAIN[:-20], {"syntax"})])
def test_a_macro_is_no_damage(tmp_path: Path, after: str, expected: set[str]) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "a.cpp").write_text(PLAIN)
    old, _ = mined(tmp_path)
    (tmp_path / "a.cpp").write_text(after)
    now, left_out = mined(tmp_path)
    assert parse(after.encode(), "cpp", calls=False)[0].has_error
    assert {one.check for one in suspects(old, now, changes(old, now), left_out)} == expected
