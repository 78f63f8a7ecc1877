"""The repository's own tests judge bodies: real pytest, contained, over a tiny repository."""

from __future__ import annotations

import json
import shutil
import subprocess
import textwrap
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_completion import row

from forge_cli import evaluate, mine
from forge_cli.core.config import RUNTIME, Settings, resolve
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Silent
from forge_cli.core.records import Chunk, Example
from forge_cli.core.run_dir import RunDir
from forge_cli.evaluate.repo_tests import TEST_COMMAND, RepoTests, trials
from forge_cli.evaluate.repo_tests.reach import Reach, node_ids
from forge_cli.evaluate.repo_tests.tree import read_tree
from forge_cli.evaluate.sandbox import why_not
from forge_cli.evaluate.suites import read_suite
from forge_cli.pipeline import judging
from openai_server import OpenAIServer

contained = pytest.mark.skipif(bool(why_not()), reason=f"cannot contain code: {why_not()}")

FILES = {
    "src/shop/__init__.py": "",
    "src/shop/price.py": '''
        """Prices."""


        def total(items, rate=0.0):
            """The sum of the items, with tax — in €."""
            whole = sum(items)
            return whole + whole * rate


        def unseen(items):
            """Called by its test, which looks at nothing."""
            kept = list(items)
            return kept


        def broken(items):
            """Its test fails as it stands."""
            kept = list(items)
            return kept


        def untested(items):
            kept = list(items)
            return kept


        class Basket:
            def __init__(self, items):
                self.items = list(items)
                self.count = len(self.items)

            def cheapest(self):
                """The least price."""
                found = min(self.items)
                return found
    ''',
    "src/shop/other.py": """
        def halve(number):
            half = number / 2
            return half
    """,
    "tests/test_price.py": """
        import unittest

        from shop.other import halve
        from shop.price import Basket, broken, total, unseen


        def test_total():
            assert total([1, 2]) == 3
            assert total([100], rate=0.5) == 150


        def test_unseen():
            try:
                unseen([1])
            except NotImplementedError:
                pass


        def test_broken():
            assert broken([1]) == [2]


        def check_halves(number):
            assert halve(number) * 2 == number


        class BasketTests(unittest.TestCase):
            def test_cheapest(self):
                self.assertEqual(Basket([3, 1, 2]).cheapest(), 1)

            def test_count(self):
                self.assertEqual(Basket([3, 1]).count, 2)
    """,
}
TOTAL = "    whole = sum(items)\n    return whole + whole * rate"
# A plugin of this environment takes pytest 2 s to import, in each of the many processes here.
QUICK = TEST_COMMAND.replace("pytest", "pytest -p no:schemathesis")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place") / "shop"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def chunks(repo: Path) -> list[Chunk]:
    return list(mine.run(repo, max_chars=300))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that what several tests need runs once."""
    return tmp_path_factory.mktemp("cache")


TEST = [row("src/shop/price.py"), row("src/shop/other.py")]


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def over(
    repo: Path,
    cache: Path,
    command: str | Sequence[str] = QUICK,
    reporter: Silent = SILENT,
    *,
    alone: bool = True,
) -> RepoTests:
    return RepoTests.over(repo, command, cache=cache, execute=True, alone=alone, reporter=reporter)


def symbols(rows: Sequence[Example], chunks: Sequence[Chunk]) -> list[str | None]:
    by_id = {chunk.id: chunk.symbol for chunk in chunks}
    return [by_id[one.origin.chunk] for one in rows]


@contained
def test_only_rows_whose_tests_notice_count(repo: Path, chunks: list[Chunk], cache: Path) -> None:
    told = Notes()
    rows = over(repo, cache, reporter=told).make_rows(chunks, TEST, 10, 0)
    assert set(symbols(rows, chunks)) == {"total", "Basket.__init__", "Basket.cheapest"}
    assert {one.origin.path for one in rows} == {"src/shop/price.py"}
    (said,) = told.notes
    assert said.startswith("repo_tests: 3 rows; looked at 7 definitions of held-out files")
    # check_halves is no test: pytest runs its file, in which another test is broken.
    for reason in ("2: its tests do not pass", "1: no test reaches it", "1: its tests do not not"):
        assert reason in said
    total = next(one for one in rows if one.answer.final == TOTAL)
    assert total.messages[-1].content == TOTAL and "sum(items)" not in total.messages[1].content


@contained
@pytest.mark.parametrize(
    ("text", "passed"),
    [
        (TOTAL, 1),
        (f"```python\n{textwrap.dedent(TOTAL)}\n```\nThis is how.", 1),
        ("    return sum(items) * (1 + rate)\n\n\ndef more():\n    pass", 1),
        ("    return sum(items)", 0),
        ("    return (", 0),
        ("", 0),
        ("    import os\n    os._exit(0)", 0),
        ("    raise SystemExit(0)", 0),
        ("    import pytest\n    pytest.skip('not today')", 0),
        ("    import pytest\n    pytest.exit('done', returncode=0)", 0),
        ("    import socket\n    socket.create_connection(('127.0.0.1', 9))", 0),
    ],
)
def test_a_body_passes_by_the_repositorys_tests(
    repo: Path, chunks: list[Chunk], cache: Path, text: str, passed: int
) -> None:
    tests = over(repo, cache)
    total = next(r for r in tests.make_rows(chunks, TEST, 10, 0) if r.answer.final == TOTAL)
    assert tests.score(total, text) == {"tests_pass": passed}
    assert (repo / "src/shop/price.py").read_text(encoding="utf-8").count(TOTAL) == 1


@contained
def test_a_body_without_end_is_stopped(
    repo: Path, chunks: list[Chunk], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = over(repo, cache)
    total = next(r for r in tests.make_rows(chunks, TEST, 10, 0) if r.answer.final == TOTAL)
    monkeypatch.setattr(trials, "_SECONDS", 3.0)
    assert tests.score(total, "    while True:\n        rate += 1") == {"tests_pass": 0}


@contained
def test_rows_are_drawn_by_seed_and_nothing_runs_twice(
    repo: Path, chunks: list[Chunk], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [one.id for one in over(repo, cache).make_rows(chunks, TEST, 10, 0)]
    monkeypatch.setattr(trials, "run_contained", None)
    assert [one.id for one in over(repo, cache).make_rows(chunks, TEST, 10, 0)] == first
    assert [one.id for one in over(repo, cache).make_rows(chunks, TEST, 2, 0)] == first[:2]
    orders = {
        tuple(one.id for one in over(repo, cache).make_rows(chunks, TEST, 10, seed))
        for seed in range(8)
    }
    assert len(orders) > 1 and {frozenset(order) for order in orders} == {frozenset(first)}
    with pytest.raises(TypeError):  # another command has to run
        over(repo, cache, "pytest {tests}").make_rows(chunks, TEST, 10, 0)


@contained
def test_a_command_of_another_kind_is_judged_by_its_exit_code(
    repo: Path, chunks: list[Chunk], tmp_path: Path
) -> None:
    code = "import sys; from shop.price import total; sys.exit(total([1, 2]) != 3)"
    tests = over(repo, tmp_path, ["python", "-c", code, "{tests}"])
    rows = tests.make_rows(chunks, TEST, 10, 0)
    assert symbols(rows, chunks) == ["total"]
    assert tests.score(rows[0], "    return 3") == {"tests_pass": 1}
    assert tests.score(rows[0], "    return 4") == {"tests_pass": 0}
    shell = over(
        repo, tmp_path, "sh -c 'test {tests} = tests/test_price.py && grep -q whole src/*/*'"
    )
    assert symbols(shell.make_rows(chunks, TEST, 10, 0), chunks) == ["total"]


@contained
def test_the_repositorys_own_environment(repo: Path, tmp_path: Path) -> None:
    place = tmp_path / "shop"
    shutil.copytree(repo, place)
    venv.create(place / ".venv")
    (site,) = (place / ".venv").glob("lib/*/site-packages")
    (site / "forge.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    (site / "owned.py").write_text("VALUE = 3\n")
    tests = place / "tests/test_price.py"
    tests.write_text(f"import owned\n{tests.read_text()}")
    mined = [chunk for chunk in mine.run(place, max_chars=300) if ".venv" not in chunk.path]
    own = over(place, tmp_path / "cache", f".venv/bin/{QUICK}")
    assert len(own.make_rows(mined, TEST, 10, 0)) == 3
    with pytest.raises(ForgeError, match="No module named 'owned'"):
        over(place, tmp_path / "cache").make_rows(mined, TEST, 10, 0)
    with pytest.raises(UsageError, match="none/python: no such program"):
        over(place, tmp_path / "cache", "none/python -m pytest {tests}")


@contained
def test_it_says_why_no_row_is_left(repo: Path, chunks: list[Chunk], tmp_path: Path) -> None:
    tests = over(repo, tmp_path, "python -m no_such_runner {tests}")
    with pytest.raises(ForgeError, match="none of 7 definitions of held-out files") as error:
        tests.make_rows(chunks, TEST, 10, 0)
    assert "6: its tests do not pass as it stands; 1: no test reaches it" in error.value.message
    assert "No module named no_such_runner" in error.value.message
    assert "test_command" in error.value.hint
    noted = Notes()
    beside = over(repo, tmp_path, "python -m no_such_runner {tests}", noted, alone=False)
    assert beside.make_rows(chunks, TEST, 10, 0) == [], "other suites go on"
    assert "none of 7 definitions" in noted.notes[0] and "test_command" in noted.notes[0]
    changed = [
        chunk.model_copy(
            update={"start_byte": chunk.start_byte + 1, "end_byte": chunk.end_byte + 1}
        )
        for chunk in chunks
    ]
    with pytest.raises(ForgeError, match="6: changed since it was mined"):
        tests.make_rows(changed, TEST, 10, 0)


def test_nothing_is_run_unless_it_is_asked_for(repo: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"cache": tmp_path, "reporter": SILENT, "alone": True}
    with pytest.raises(UsageError, match="repo_tests runs what the models write"):
        RepoTests.over(repo, TEST_COMMAND, execute=False, **given)
    with pytest.raises(UsageError, match="trained on finished rows"):
        RepoTests.over(None, TEST_COMMAND, execute=True, **given)
    with pytest.raises(UsageError, match="the repository is gone"):
        RepoTests.over(tmp_path / "none", TEST_COMMAND, execute=True, **given)


def test_tests_are_found_by_links_and_by_name(chunks: list[Chunk]) -> None:
    reach = Reach(chunks)
    by_symbol = {chunk.symbol: chunk for chunk in chunks}
    file = "tests/test_price.py"

    def ids(symbol: str) -> list[str]:
        return node_ids(reach.tests_of(by_symbol[symbol]), lambda path: path.removeprefix("x/"))

    assert ids("total") == [f"{file}::test_total"]
    assert f"{file}::BasketTests::test_cheapest" in ids("Basket.cheapest")
    assert f"{file}::BasketTests::test_count" in ids("Basket.__init__")
    assert ids("halve") == [file] and not ids("untested")


def test_the_copy_has_what_git_tracks(tmp_path: Path) -> None:
    inner = tmp_path / "top" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.py").write_text("a = 1\n")
    (inner / "b.bin").write_bytes(b"\xff\xfe")
    (inner / "made.py").write_text("")
    (inner / ".gitignore").write_text("made.py\n")
    (inner / "link.py").symlink_to("/etc/passwd")
    alone = read_tree(inner)
    assert alone.prefix == "" and set(alone.files) == {"a.py", "made.py", ".gitignore"}
    subprocess.run(["git", "init", "-q", str(tmp_path / "top")], check=True)
    tracked = read_tree(inner)
    assert set(tracked.files) == {"a.py", ".gitignore"} and tracked.prefix == "inner/"
    assert tracked.inside("inner/a.py") == "a.py" and tracked.digest != alone.digest
    assert tracked.digest == read_tree(inner).digest


def test_a_run_knows_its_repository(tmp_path: Path) -> None:
    assert judging._root(RunDir(tmp_path, {"source": str(tmp_path)})) == tmp_path
    assert judging._root(RunDir(tmp_path, {"source": "sha256:ab"})) is None


def test_settings_and_suite() -> None:
    assert Settings().test_command == TEST_COMMAND and "test_command" not in RUNTIME
    found = resolve({}, environ={"FORGE_TEST_COMMAND": "[tox, -e, py]", "FORGE_TEST_OLLAMA": "x"})
    assert found.settings.test_command == ["tox", "-e", "py"]
    assert read_suite("repo-tests").conditions == ["repo_tests"]


@contained
def test_the_column_comes_out_of_an_evaluation(
    repo: Path, chunks: list[Chunk], cache: Path, tmp_path: Path
) -> None:
    def answer(chat: list[dict[str, str]]) -> str:
        if "def total" not in chat[-1]["content"]:
            return "        pass"
        return TOTAL

    server = OpenAIServer(answer)
    wrong = OpenAIServer(lambda chat: "    import os\n    os._exit(0)")
    given: dict[str, Any] = {
        "adapters": tmp_path, "conditions": ["repo_tests"], "chunks": chunks, "resamples": 1000,
        "execute": True, "root": repo, "test_command": QUICK,
    }  # fmt: skip
    try:
        for name, one in (("right", server), ("wrong", wrong)):
            shutil.copytree(cache, tmp_path / name / "cache")
            evaluate.run(
                TEST, out=tmp_path / name, sides=["openai:a", "openai:b"], url=one.url, **given
            )
    finally:
        server.close()
        wrong.close()
    for name, mean in (("right", 1 / 3), ("wrong", 0.0)):
        (pair,) = json.loads((tmp_path / name / "pairs.json").read_text())
        assert (pair["condition"], pair["metric"]) == ("repo_tests", "tests_pass")
        assert pair["found"]["n"] == 3 and pair["found"]["tuned"] == pytest.approx(mean)
        rates = json.loads((tmp_path / name / "sides.json").read_text())["openai:a"]["repo_tests"]
        assert rates["rates"]["tests_pass"]["rate"] == pytest.approx(mean)
        lines = [json.loads(x) for x in (tmp_path / name / "raft.jsonl").read_text().splitlines()]
        assert {line["sides"]["openai:a"]["tests_pass"] for line in lines} <= {0.0, 1.0}
