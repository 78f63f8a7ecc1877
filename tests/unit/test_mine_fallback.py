"""Mining languages without a query: cut where their syntax allows, with no symbols invented."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_cli import mine
from forge_cli.core.errors import UsageError
from forge_cli.core.records import Chunk, Verdict
from forge_cli.mine.grammar import parse
from forge_cli.mine.languages import language_of, languages, refine
from language_sample import keeps_the_contract, survives_damage

HASKELL = """\
module Walk (go) where

import Data.Map (Map)

-- | Goes.
-- Really.
go :: Int -> Int
go 0 = 1
go n = n * go (n - 1)

{- How it went. -}
data Way = Well | Badly
  deriving (Show)

-- What can be told.
class Told a where
  -- How.
  how :: a -> Int
"""
YAML = """\
# The name.
name: x

# What runs.
jobs:
  # First.
  a:
    - run: x
    - run: y
  # Second.
  b:
    steps:
      - z
on: push
"""
PERL = """\
package Walk;
use strict;

# Goes.
sub go {
  my ($x) = @_;
  return $x + 1;
}

# Stops.
sub stop { 1 }
1;
"""
FALLBACK = [name for name, one in languages().items() if one.parsed and not one.tagged]


def mined(folder: Path, name: str, text: str, limit: int) -> list[Chunk]:
    (folder / name).write_text(text)
    chunks = list(mine.run(folder, max_chars=limit, jobs=1))
    keeps_the_contract(chunks, text.encode())
    return chunks


@pytest.mark.parametrize(
    ("name", "text", "limit", "kind", "begins"),
    [
        ("Walk.hs", HASKELL, 110, "module", ["module Walk", "-- | Goes.", "{- How", "-- What can"]),
        ("ci.yml", YAML, 110, "text", ["# The name.", "# What runs."]),
        ("Walk.pm", PERL, 70, "module", ["package Walk", "# Goes.", "# Stops."]),
    ],
)
def test_a_comment_stays_with_what_it_stands_above(
    tmp_path: Path, name: str, text: str, limit: int, kind: str, begins: list[str]
) -> None:
    chunks = mined(tmp_path, name, text, limit)
    assert [chunk.text[: len(head)] for chunk, head in zip(chunks, begins, strict=True)] == begins
    assert {(chunk.kind, chunk.symbol) for chunk in chunks} == {(kind, None)}


def test_neighbours_share_a_chunk_while_they_fit(tmp_path: Path) -> None:
    text = "".join(f"(defun f{n} (x)\n  (+ x {n}))\n\n" for n in range(40))
    chunks = mined(tmp_path, "a.lisp", text, 300)
    assert all(chunk.text.startswith("(defun ") and chunk.parts == 1 for chunk in chunks)
    assert all(len(chunk.text) > 200 for chunk in chunks[:-1])


def test_what_the_grammar_cannot_read_is_cut_at_paragraphs(tmp_path: Path) -> None:
    paragraph = "# About it.\nso ) } it ( { is = = nothing ) that ] is } Haskell\n\n"
    chunks = mined(tmp_path, "a.hs", paragraph * 20, 150)
    assert {chunk.text for chunk in chunks} == {2 * paragraph}


def test_a_long_comment_is_cut_into_linked_parts(tmp_path: Path) -> None:
    comment = "".join(f"/// Line {n} of what the library does.\n" for n in range(30))
    chunks = mined(tmp_path, "a.dart", f"{comment}library;\n\nint f() => 1;\n", 500)
    assert [chunk.part for chunk in chunks if chunk.parts > 1] == [1, 2, 3]
    assert chunks[-1].text == "int f() => 1;\n"


def test_what_is_in_one_element_is_parted_inside_of_it(tmp_path: Path) -> None:
    rows = "".join(f'  "key{n}": {{\n    "a": {n}\n  }},\n' for n in range(30))
    chunks = mined(tmp_path, "a.json", f'{{\n{rows}  "last": 1\n}}\n', 200)
    assert all(chunk.text.startswith('  "key') for chunk in chunks[1:])


@pytest.mark.parametrize("language", FALLBACK)
def test_every_grammar_takes_what_it_does_not_expect(language: str) -> None:
    for text in (HASKELL, YAML, "<a b='c'>\n\t(1 {2}) é🎉 \\ `\n"):
        root, tags = parse(text.encode(), language)
        assert root.end_byte <= len(text.encode())
        assert not tags.definitions and not tags.calls and not tags.imports


@pytest.mark.parametrize("language", ["haskell", "yaml", "perl", "json", "html", "elixir", "text"])
def test_damage(language: str) -> None:
    survives_damage(language, {"yaml": YAML, "perl": PERL}.get(language, HASKELL), rounds=40)


def test_no_two_languages_have_the_same_files() -> None:
    for part in ("endings", "names", "interpreters"):
        every = [name for one in languages().values() for name in getattr(one, part)]
        assert len(every) == len(set(every)), part


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/CMakeLists.txt", "cmake"),
        ("a/notes.txt", "text"),
        ("Dockerfile", "dockerfile"),
        ("go.mod", "gomod"),
        (".gitignore", "gitignore"),
        ("a.R", "r"),
        ("Makefile", "make"),
        ("a.unknown", None),
        ("LICENSE", "text"),
        ("run", None),
    ],
)
def test_by_name(path: str, language: str | None) -> None:
    assert language_of(path) == language


@pytest.mark.parametrize(
    ("line", "language"),
    [
        ("#!/usr/bin/python3.12", "python"),
        ("#!/usr/bin/env -S node --harmony", "javascript"),
        ("#! /usr/bin/perl -w", "perl"),
        ("#!/usr/bin/env LANG=C ruby", "ruby"),
        ("#!/bin/zsh", "bash"),
        ("#!/opt/unheard-of", None),
        ("#!", None),
        ("#!/usr/bin/env", None),
        ("echo", None),
    ],
)
def test_by_first_line(line: str, language: str | None) -> None:
    assert refine(None, "bin/run", f"{line}\nx\n".encode()) == language
    assert refine(None, "bin/run.odd", f"{line}\nx\n".encode()) is None
    assert refine("text", "README", f"{line}\nx\n".encode()) == "text"


@pytest.mark.parametrize(
    ("path", "text", "language"),
    [
        ("a.h", "/**\n@interface A\n*/\nint f();\n", "c"),
        ("a.h", "@class A;\n", "objc"),
        ("a.h", "#import <A/A.h>\n", "objc"),
        ("a.H", "template <class T> T f();\n", "cpp"),
        ("a.m", "@implementation A\n@end\n", "objc"),
        ("a.m", "x = 1;\n", "matlab"),
        ("a.inc", "<?php f();\n", "php"),
        ("a.inc", "MOV A, B\n", "text"),
        ("a.ts", '<?xml version="1.0"?>\n<TS/>\n', "xml"),
        ("a.ts", "const a = 1;\n", "typescript"),
    ],
)
def test_by_what_it_holds(path: str, text: str, language: str) -> None:
    assert refine(language_of(path), path, text.encode()) == language


def test_a_file_of_no_known_language_is_rejected_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "data.csv").write_text("1,2\n")
    verdicts: list[Verdict] = []
    assert len(list(mine.run(tmp_path, jobs=1, on_reject=verdicts.append))) == 1
    assert [(v.path, v.check) for v in verdicts] == [("data.csv", "language")]


def test_a_parse_without_end_costs_only_the_better_cuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.hs").write_text(HASKELL * 400)
    chunks = list(mine.run(tmp_path, jobs=1, parse_seconds=0.0))
    assert "".join(chunk.text for chunk in chunks) == HASKELL * 400


def test_a_mistyped_language_is_corrected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="haskel: unknown language") as caught:
        mine.run(tmp_path, langs=["haskel"])
    assert caught.value.hint == "did you mean haskell?"
