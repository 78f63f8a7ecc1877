"""Mining real trees: nothing lost, nothing torn, and the same every time."""

from __future__ import annotations

import ast
import asyncio
import email
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import forge_cli
from forge_cli import mine
from forge_cli.core.records import Chunk, Verdict
from forge_cli.mine.languages import languages
from forge_cli.mine.words import last_word, words
from language_sample import survives_damage

TREES = {
    "forge": Path(forge_cli.__file__).parent,
    "json": Path(json.__file__).parent,
    "asyncio": Path(asyncio.__file__).parent,
    "email": Path(email.__file__).parent,
}


@pytest.fixture(scope="module", params=TREES)
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real tree, outside of any repository that could ignore it."""
    copy: Path = tmp_path_factory.mktemp("trees") / request.param
    shutil.copytree(TREES[request.param], copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def by_path(chunks: list[Chunk]) -> dict[str, list[Chunk]]:
    found: dict[str, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        found[chunk.path].append(chunk)
    return found


def definitions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        else:
            for block in ("body", "orelse", "finalbody"):
                yield from definitions(getattr(node, block, []))


def test_every_byte_of_every_file_is_in_one_chunk_or_reject(tree: Path) -> None:
    verdicts: list[Verdict] = []
    chunks = list(mine.run(tree, on_reject=verdicts.append))
    files = {p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file()}
    empty = {name for name in files if (tree / name).stat().st_size == 0}
    mined = by_path(chunks)
    assert files == set(mined) | {v.path for v in verdicts} | empty
    for path, parts in mined.items():
        data = (tree / path).read_bytes()
        ends = [0, *(part.end_byte for part in parts)]
        assert [part.start_byte for part in parts] == ends[:-1] and ends[-1] == len(data)
        assert [part.text.encode() for part in parts] == [
            data[part.start_byte : part.end_byte] for part in parts
        ]
        assert max(part.end_byte - part.start_byte for part in parts) <= 1500
    assert len({chunk.id for chunk in chunks}) == len(chunks)


def test_no_comment_or_decorator_is_cut_from_a_definition_that_fits(tree: Path) -> None:
    """Judged by CPython's own parser and the lines, not by the grammar that cuts."""
    torn, seen = [], 0
    for path, parts in by_path(list(mine.run(tree, langs=["python"]))).items():
        # Not splitlines(): a form feed ends no line of Python.
        lines = (tree / path).read_bytes().decode().split("\n")
        owner = [chunk for chunk in parts for _ in range(chunk.text.count("\n"))] + parts[-1:]
        for node in definitions(ast.parse("\n".join(lines)).body):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
            indent = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
            while first and lines[first - 1].startswith(indent + "#"):
                first -= 1
            last = (node.end_lineno or node.lineno) - 1
            seen += 1
            if len("\n".join(lines[first : last + 1]).encode()) < 1300:
                torn += [(path, first + 1)] * (owner[first] is not owner[last])
    assert seen and not torn


def test_docstrings_are_those_of_cpython(tree: Path) -> None:
    compared = 0
    for path, parts in by_path(list(mine.run(tree, langs=["python"]))).items():
        wanted = {}
        for node in definitions(ast.parse((tree / path).read_bytes()).body):
            wanted[node.lineno] = (node.name, (ast.get_docstring(node) or "").strip())
        for chunk in parts:
            if chunk.kind in ("function", "method") and chunk.part == 1:
                name = (chunk.symbol or "").rsplit(".", 1)[-1]
                lines = range(chunk.start_line, chunk.end_line + 1)
                said = {wanted[line][1] for line in lines if wanted.get(line, "")[:1] == (name,)}
                assert (chunk.docstring or "").strip() in said
                compared += 1
    assert compared


def test_parts_are_no_crumbs_and_keep_comments_with_their_statements(tmp_path: Path) -> None:
    body = "".join(
        f"    # why {number} is added\n    total = add(\n        total, {number}\n    )\n"
        for number in range(30)
    )
    (tmp_path / "a.py").write_text(f"def f(total):\n{body}    return total\n")
    parts = list(mine.run(tmp_path, max_chars=500))
    assert len(parts) > 3 and {part.parts for part in parts} == {len(parts)}
    for part in parts[1:]:
        assert part.text.startswith("    # why"), "cut off from its comment"
        assert part.header == "def f(total)" and len(part.text) >= 100


def test_blank_lines_do_not_push_a_definition_over_the_limit(tmp_path: Path) -> None:
    function = "def f():\n" + "    x = 1\n" * 19  # 199 bytes
    (tmp_path / "a.py").write_text(f"y = 1\n\n\n{function}\n\n\n\n\nz = 2\n")
    texts = [chunk.text for chunk in mine.run(tmp_path, max_chars=200)]
    assert sum("def f" in text for text in texts) == 1
    assert next(text for text in texts if "def f" in text).count("x = 1") == 19


SEEDS = {
    "python": 'class A(B):\n    # c\n    @d\n    def f(self):\n        """D."""\n        g(1)\n\n',
    "javascript": "/** d */\nexport class A { m() { f(`${x}`); } }\nconst g = (a) => { h(a); };\n",
    "typescript": "export interface I { a: string }\n// c\nfunction f<T>(a: T): T { return a; }\n",
    "tsx": "export const V = (p: P) => <div a={p.a}>{p.b ? <b/> : null}</div>;\n",
    "go": "// d\nfunc (s *S[T]) M(a int) error { return f(a) }\ntype ( A struct{}; B int )\n",
    "rust": "/// d\n#[x]\nimpl<T> A for B<T> { fn f(&self) -> &'a str { g!(1) } }\n",
    "java": "/** d */\n@A class B<T> { @C int f(int a) { return g(a); } }\n",
    "c": "#ifdef X\nstatic int f(int a) /* n */\n{ return g(a); }\n#endif\nstruct s { int x; };\n",
    "cpp": "namespace n {\ntemplate <class T> class A { int f() const { return g(); } };\n}\n",
    "markdown": "# A\n\ntext\n\nB\n===\n\n```\n# c\n```\n\n> # q\n\n## D\n",
}


@pytest.mark.parametrize("language", SEEDS)
def test_damaged_sources_keep_the_contract(language: str) -> None:
    survives_damage(language, SEEDS[language], rounds=150)


def test_every_language_with_a_query_has_a_test() -> None:
    folder = Path(__file__).parent / "languages"
    tested = {file.stem.removeprefix("test_") for file in folder.glob("test_*.py")}
    tagged = {name for name, one in languages().items() if one.tagged}
    assert tagged == tested | set(SEEDS)


def test_words() -> None:
    assert words(b"a.b_1(\xc3\xa9, 2)") == [b"a", b"b_1", b"\xc3\xa9", b"2"]
    assert last_word(b"x = self.name") == b"name" and last_word(b"f()") == b""


def test_processes_and_runs_give_the_same_chunks_and_rejects(tmp_path: Path) -> None:
    for number in range(220):
        (tmp_path / f"m{number:03}.py").write_text(f"def f{number}():\n    f{number - 1}()\n")
        if number % 50 == 0:
            (tmp_path / f"n{number:03}.py").write_bytes(b"\0")
    found = []
    for jobs in (1, 2):
        verdicts: list[Verdict] = []
        found.append((list(mine.run(tmp_path, jobs=jobs, on_reject=verdicts.append)), verdicts))
    assert found[0] == found[1]
    paths = [chunk.path for chunk in found[0][0]]
    assert paths == sorted(paths) and len(found[0][1]) == 5
