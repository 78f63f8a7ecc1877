"""Mining: every byte in one chunk, definitions whole, and what is left out is named."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
from pathlib import Path

import pytest

from forge_cli import mine
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.records import Chunk, Verdict

STDLIB = Path(json.__file__).parents[1]

SAMPLES = {
    "a.py": (
        "import os\n\n\n# why it is there\n@wrap(1)\ndef f(a, *, b=2) -> int:\n"
        '    """Adds. More."""\n    return os.add(a, b)  # tail\n\n\n'
        "class K(Base):\n    x = 1\n\n    def m(self):\n        return f(1)\n"
    ),
    "a.ts": (
        'import { foo } from "./foo";\n\n/** Adds numbers. */\n'
        "export async function f(a: number, b = 2): Promise<number> {\n  return foo(a) + b;\n}\n\n"
        "export class K extends Base {\n  /** Does it. */\n"
        "  m(x: string): void { f(1); }\n}\n"
    ),
    "a.js": (
        "// note\nconst f = (a) => {\n  return g(a);\n};\n\nclass K {\n  m() { return f(1); }\n}\n"
    ),
    "a.go": (
        'package main\n\nimport "fmt"\n\n'
        "// f adds.\nfunc f(a int) error {\n\treturn fmt.Sum(a)\n}\n\n"
        "// K is.\ntype K struct {\n\tA int\n}\n\nfunc (k *K) m() error { return f(1) }\n"
    ),
    "a.rs": (
        "use std::fmt;\n\n/// Adds.\n#[inline]\npub fn f(a: i32) -> i32 { fmt::sum(a) }\n\n"
        "/// A point.\n#[derive(Debug)]\nstruct K { x: i32 }\n\n"
        "impl K {\n    fn m(&self) -> i32 { f(1) }\n}\n"
    ),
    "A.java": (
        "import java.util.List;\n\n/** A service. */\n@Service\npublic class K {\n"
        "  /** Runs. */\n  @Override\n  public int m(List<String> a) { return f(a.size()); }\n\n"
        "  int f(int n) { return n; }\n}\n"
    ),
    "a.c": (
        "#include <stdio.h>\n\n/* Adds. */\n"
        "static int f(int a, char *b) { return puts(b) + a; }\n\n"
        "struct K {\n  int x;\n};\n\nchar *m(void) { return f(1, 0); }\n"
    ),
    "a.cpp": (
        "#include <vector>\n\n// Adds.\ntemplate <typename T>\nint f(T a) { return g(a); }\n\n"
        "class K : public B {\n public:\n  int m() const { return f(1); }\n};\n"
    ),
    "a.md": "intro\n\n# f\n\ntext\n\n## m\n\n```py\n# no heading\n```\n\n# K\n",
}


def mined(path: Path, **options: object) -> list[Chunk]:
    return list(mine.run(path, **options))  # type: ignore[arg-type]


def assert_lossless(root: Path, chunks: list[Chunk]) -> None:
    """A file's chunks are disjoint, in order, and cover it; their text is its bytes."""
    by_path: dict[str, list[Chunk]] = {}
    for chunk in chunks:
        by_path.setdefault(chunk.path, []).append(chunk)
    for path, parts in by_path.items():
        data = (root / path).read_bytes()
        assert b"".join(part.text.encode() for part in parts) == data, path
        at = 0
        for part in parts:
            assert part.start_byte == at, path
            assert part.text.encode() == data[part.start_byte : part.end_byte]
            assert part.start_line == data.count(b"\n", 0, part.start_byte) + 1
            at = part.end_byte


@pytest.mark.parametrize("name", SAMPLES)
def test_definitions_are_whole_in_every_language(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(SAMPLES[name])
    # A class is opened when it is larger than half of the limit, so small ones stay whole.
    chunks = mined(tmp_path, max_chars=200)
    assert_lossless(tmp_path, chunks)
    by_symbol = {(c.symbol or "").rsplit(".", 1)[-1]: c for c in chunks}
    assert {"f", "K"} <= set(by_symbol) or name == "A.java"
    found = by_symbol.get("f") or by_symbol["K"]
    if name in ("a.py", "a.ts", "a.js", "a.go", "a.rs", "a.c", "a.cpp"):
        assert found.text.lstrip().startswith(("#", "/"))
        assert found.kind == "function"
        assert found.signature and "f" in found.signature and "\n" not in found.signature


def test_signature_docstring_header_calls(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SAMPLES["a.py"])
    chunks = {c.symbol: c for c in mined(tmp_path, max_chars=200) if c.kind != "module"}
    function = chunks["f"]
    assert function.signature == "def f(a, *, b=2) -> int"
    assert function.docstring == "Adds. More."
    assert function.text.startswith("# why it is there\n@wrap(1)\n")
    assert function.calls == ["wrap", "add"] and "import os" in function.header
    assert function.called_by == ["K"]


def test_a_method_of_a_large_class_stands_alone_under_its_class(tmp_path: Path) -> None:
    body = "".join(f"    def m{i}(self):\n        return {i}\n\n" for i in range(12))
    (tmp_path / "a.py").write_text(f"class K(Base):\n    '''Doc.'''\n\n{body}")
    chunks = mined(tmp_path, max_chars=200)
    method = next(c for c in chunks if c.symbol == "K.m3")
    assert method.kind == "method" and method.header.startswith("class K(Base)")
    assert_lossless(tmp_path, chunks)


@pytest.mark.parametrize(
    "data",
    [
        b"def f():\r\n    return 1\r\n",
        b"\xef\xbb\xbfdef f():\n    return 1\n",
        b"def f(:\n   ((\n\ndef g():\n    return 1\n",
        b"x = '" + b"y" * 4000 + b"'\n",
        b"s = '" + "ä€🎉".encode() * 300 + b"'\n",
        b"def f():\n" + b"    a = 1\n" * 900,
        b"\n\n\n",
        b"def f(): pass",
        b"def f(): pass; x = 1\ndef g(): pass\n",
    ],
    ids=[
        "crlf",
        "bom",
        "syntax error",
        "long leaf",
        "wide utf-8",
        "long",
        "blank",
        "no newline",
        ";",
    ],
)
def test_awkward_files_lose_nothing(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(data)
    chunks = mined(tmp_path, max_chars=500)
    assert_lossless(tmp_path, chunks)
    assert all(c.end_byte - c.start_byte <= 500 for c in chunks)


def test_the_rest_of_a_broken_file_is_mined(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "class A:\n    def f(self):\n        return (\n\n\ndef good():\n    pass\n"
    )
    assert "good" in {c.symbol for c in mined(tmp_path)}


def test_parts_of_an_oversized_function(tmp_path: Path) -> None:
    lines = "".join(f"    total += call_{i}(\n        1,\n    )\n" for i in range(60))
    (tmp_path / "a.py").write_text(f"def f(total):\n{lines}    return total\n")
    parts = [c for c in mined(tmp_path, max_chars=600) if c.symbol == "f"]
    assert len(parts) > 1 and [c.part for c in parts] == list(range(1, len(parts) + 1))
    assert all(c.parts == len(parts) for c in parts)
    for part in parts[1:]:
        assert part.text.startswith(("    total +=", "    return")), "cut inside a statement"
        assert "def f(total)" in part.header


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "ok.py").write_text("x = 1\n")
    (tmp_path / "nul.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "latin.py").write_bytes("# é\n".encode("latin-1"))
    (tmp_path / "min.js").write_text("var a=1;" * 2000)
    (tmp_path / "photo.xyz").write_text("hello")
    (tmp_path / ".env").write_text("TOKEN=1")
    (tmp_path / "link.py").symlink_to(tmp_path / "ok.py")
    verdicts: list[Verdict] = []
    chunks = mined(tmp_path, on_reject=verdicts.append)
    assert {c.path for c in chunks} == {"ok.py"}
    assert {v.path: v.check for v in verdicts} == {
        "nul.py": "binary",
        "latin.py": "encoding",
        "min.js": "minified",
        "photo.xyz": "language",
        ".env": "secret",
        "link.py": "symlink",
    }


def test_git_and_forge_ignore(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("built.py\n")
    (tmp_path / ".forgeignore").write_text("private/\n")
    for name in ("a.py", "built.py", "private/b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    assert {c.path for c in mined(tmp_path, langs=["python"])} == {"a.py"}


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        mined(tmp_path / "none")
    with pytest.raises(ForgeError, match="no files"):
        mined(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"\0")
    with pytest.raises(ForgeError, match="none of 1 files"):
        mined(tmp_path)
    with pytest.raises(UsageError, match="unknown language"):
        mined(tmp_path, langs=["klingon"])


def test_a_builtin_is_not_a_call_of_what_is_named_like_it(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "class Door:\n    def open(self):\n        return 1\n\n"
        "    def unlatch(self):\n        return self.open()\n"
        + "    # pad\n"
        * 40
        + "\n\ndef read(p):\n    return open(p)\n\n\ndef walk(d):\n    d.unlatch()\n"
        "    return d.open()\n"
    )
    (tmp_path / "b.py").write_text("def str(x):\n    return x\n\n\ndef f():\n    return str(1)\n")
    (tmp_path / "c.py").write_text("import os\n\n\ndef g():\n    return str(1)\n")
    (tmp_path / "d.py").write_text("class T:\n    def chown(self):\n        os.chown(1)\n")
    (tmp_path / "e.py").write_text("def chown(x):\n    return x\n")
    found = {c.symbol: c.called_by for c in mined(tmp_path, max_chars=200) if c.signature}
    assert found["Door.open"] == ["Door.unlatch"], "d may be any path or archive"
    assert found["Door.unlatch"] == ["walk"]
    assert found["str"] == ["f"], "in another file it is Python's"
    assert found["chown"] == [], "what a definition names is no call of it"


PACKAGES = [
    "json",
    "email",
    "asyncio",
    "lib2to3",
    "idlelib",
    "distutils",
    "xml",
    "http",
    "unittest",
]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_standard_library_is_covered(package: str) -> None:
    if not (STDLIB / package).is_dir():
        pytest.skip("not in this Python")
    covers(STDLIB / package)


@pytest.mark.parametrize("package", ["numpy", "mlx", "pyarrow"])
def test_headers_of_installed_packages_are_covered(package: str) -> None:
    """Real C and C++, some of it with macros that no grammar can read."""
    found = importlib.util.find_spec(package)
    tops = found.submodule_search_locations if found else None
    headers = [h for top in tops or () for h in Path(top).rglob("include") if h.is_dir()]
    if not headers:
        pytest.skip(f"{package} brings no headers here")
    assert sum(covers(folder) for folder in headers[:1]) > 10


def covers(root: Path) -> int:
    """Check the contract over a whole tree: each file is in chunks, or named; how many files."""
    verdicts: list[Verdict] = []
    chunks = mined(root, on_reject=verdicts.append)
    assert_lossless(root, chunks)
    assert all(c.end_byte - c.start_byte <= 1500 for c in chunks)
    known = {c.path for c in chunks} | {v.path for v in verdicts}
    files = [p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    missing = [p for p in files if p.relative_to(root).as_posix() not in known and p.stat().st_size]
    assert not missing
    return len(files)


def test_random_damage_loses_nothing(tmp_path: Path) -> None:
    rng = random.Random(0)
    for round_ in range(60):
        name = rng.choice(sorted(SAMPLES))
        data = bytearray(SAMPLES[name].encode() * 3)
        for _ in range(rng.randrange(1, 12)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(3)] = bytes([rng.choice(b"(){}[]\"'`#/*\n\t ;a")])
        folder = tmp_path / str(round_)
        folder.mkdir()
        (folder / name).write_bytes(bytes(data))
        assert_lossless(folder, mined(folder, max_chars=150))


def test_processes_change_nothing(tmp_path: Path) -> None:
    for number in range(220):
        (tmp_path / f"m{number:03}.py").write_text(
            f"def f{number}():\n    return f{number - 1}()\n"
        )
    assert mined(tmp_path, jobs=2) == mined(tmp_path, jobs=1)


def test_a_parse_without_end_loses_one_file_by_name(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("def f(a):\n    return [a, 1]\n" * 3000)
    (tmp_path / "short.py").write_text("x = 1\n")
    verdicts: list[Verdict] = []
    chunks = list(mine.run(tmp_path, parse_seconds=0.0, on_reject=verdicts.append))
    assert {chunk.path for chunk in chunks} == {"short.py"}
    assert [(v.path, v.check) for v in verdicts] == [("long.py", "parse")]
    assert "no end after 0 s" in verdicts[0].reason
    # The parser is kept for the next file: it must not go on with the one that it gave up.
    whole = list(mine.run(tmp_path))
    assert {chunk.path for chunk in whole} == {"long.py", "short.py"}
    assert sum(chunk.symbol == "f" for chunk in whole) == 3000
