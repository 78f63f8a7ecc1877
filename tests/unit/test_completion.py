"""Held-out definitions to complete: where they are cut, and scores worked out by hand."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from forge_cli import mine
from forge_cli.core.records import Answer, Chunk, Example, Origin
from forge_cli.evaluate.asked import choose
from forge_cli.evaluate.code_rows import completions, cuts, definitions, texts
from forge_cli.evaluate.metrics import score
from forge_cli.evaluate.metrics.code import trim

FILES = {
    "held.py": '''
        import math


        class Ring:
            """Round."""

            # How far.
            def area(
                self, inner: float = 0.0
            ) -> float:
                """The area."""
                whole = math.pi * self.radius**2
                return whole - math.pi * inner**2

            def stub(self): ...


        def one_line(x): return x


        def documented(x):
            """Only this."""
    ''',
    "held.go": """
        package ring

        // Area of it.
        func Area(radius float64) float64 {
            whole := 3.14 * radius * radius
            return whole
        }
    """,
    "trained.py": """
        def other(x):
            y = x + 1
            return y
    """,
}
BODY = "        whole = math.pi * self.radius**2\n        return whole - math.pi * inner**2"


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> list[Chunk]:
    folder = tmp_path_factory.mktemp("code")
    for name, text in FILES.items():
        (folder / name).write_text(textwrap.dedent(text).lstrip())
    return list(mine.run(folder, max_chars=260))


def row(path: str, split: str = "test") -> Example:
    return Example(
        id=path, context_id=path, documents=[], question="q", answer=Answer(reason="", final="a"),
        messages=[], origin=Origin(kind="purpose", chunk="c", path=path), split=split,  # type: ignore[arg-type]
    )  # fmt: skip


TEST = [row("held.py"), row("held.go")]


def test_definitions_of_held_out_files_are_cut_after_their_docstring(chunks: list[Chunk]) -> None:
    found = {one.origin.path: one for one in completions(chunks, TEST, 10, 0)}
    assert set(found) == {"held.py", "held.go"}
    own = found["held.py"]
    assert own.answer.final == BODY == own.messages[-1].content
    shown = own.messages[1].content
    assert "import math" in shown and "class Ring" in shown and "# How far." in shown
    assert shown.endswith('"""The area."""\n```') and "whole" not in shown
    go = found["held.go"]
    assert go.messages[1].content.endswith("float64 {\n```")
    assert go.answer.final == "    whole := 3.14 * radius * radius\n    return whole\n}"


def test_what_has_no_body_worth_asking_for_is_left_out(chunks: list[Chunk]) -> None:
    found = {chunk.symbol: cuts(chunk) for chunk in chunks if chunk.symbol}
    assert found["one_line"] == found["documented"] == []
    assert found["Ring.area"][0][1] == BODY


def test_methods_of_a_class_that_is_one_chunk_are_asked_one_by_one(tmp_path: Path) -> None:
    text = """
        import math

        class Ring:
            size = 3

            @property
            def area(self):
                # How far.
                side = self.size
                return side * math.pi

            def stub(self): ...

            def grow(self, by):
                \"\"\"Larger.\"\"\"
                self.size += by
                return self
            # Done.
    """
    (tmp_path / "held.py").write_text(textwrap.dedent(text).lstrip())
    mined = list(mine.run(tmp_path))
    assert [chunk.kind for chunk in mined if chunk.symbol == "Ring"] == ["class"]
    found = definitions(mined, TEST, "definition")
    bodies = [row.answer.final for _, _, row in found]
    assert bodies == [
        "        side = self.size\n        return side * math.pi",
        "        self.size += by\n        return self",
    ]
    shown = found[1][2].messages[1].content
    assert shown.endswith('"""Larger."""\n```') and "return side * math.pi" in shown
    assert len({row.id for _, _, row in found}) == 2
    assert [score(row, row.answer.final)["exact_match"] for _, _, row in found] == [1, 1]
    assert all(chunk.text.startswith(head) for chunk, head, _ in found)


def test_texts_are_of_held_out_files_alone(chunks: list[Chunk]) -> None:
    found = texts(chunks, TEST, 10, 0)
    assert found and {one.origin.path for one in found} <= {"held.py", "held.go"}
    by_id = {chunk.id: chunk.text for chunk in chunks}
    assert all(one.messages[-1].content == by_id[one.origin.chunk].strip() for one in found)


def test_a_suite_of_code_asks_for_code_alone(chunks: list[Chunk]) -> None:
    asked = choose(
        [*TEST, row("trained.py", "train")], chunks, ["completion", "perplexity"], rows=5,
        answer_rows=5, condition_rows=5, seed=0,
    )  # fmt: skip
    assert {q.condition for q in asked.questions} == {"completion"}
    assert {q.condition for q in asked.rows} == {"perplexity"}
    none = choose(TEST, [], ["completion"], rows=5, answer_rows=5, condition_rows=5, seed=0)
    assert not none.questions and not none.rows


@pytest.mark.parametrize(
    ("text", "exact", "edit", "parses"),
    [
        (BODY, 1, 1, 1),
        (f"```python\n{BODY}\n```\nThis is how.", 1, 1, 1),
        (textwrap.dedent(BODY), 1, 1, 1),
        (f"{BODY}\n\n    def more(self):\n        pass", 1, 1, 1),
        ("        return 0", 0, 16 / 82, 1),
        ("        return (", 0, 16 / 82, 0),
        ("", 0, 0, 0),
    ],
)
def test_scores(chunks: list[Chunk], text: str, exact: int, edit: float, parses: int) -> None:
    example = next(e for e in completions(chunks, TEST, 10, 0) if e.origin.path == "held.py")
    found = score(example, text)
    assert len(BODY) == 82
    assert (found["exact_match"], found["parses"]) == (exact, parses)
    assert found["edit_similarity"] == pytest.approx(edit, abs=0.02)


def test_a_body_in_brackets_ends_with_its_bracket(chunks: list[Chunk]) -> None:
    example = next(e for e in completions(chunks, TEST, 10, 0) if e.origin.path == "held.go")
    found = score(example, f"{example.answer.final}\n\nfunc More() {{\n}}")
    assert found["exact_match"] == 1 and "parses" not in found
    assert trim("  a\n}\nb", "  a\n}") == "  a\n}"
