"""Mining: what each language's definitions are called, where they begin, what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_cli import mine
from forge_cli.core.records import Chunk

PYTHON = '''\
import os
import numpy as np


class A(Base):
    """Doc of A."""

    # about f
    def f(self, sep=" # ", *, k: int = 1) -> str:  # why
        # first
        r"""Splits at \\d.

        Indented.
        """
        return self.g() + os.getcwd()

    x = 1

    # about g
    @staticmethod
    def g(a="x: #1"):
        "It's \\"g\\"."
        return a
'''
JAVA = """\
import java.util.List;
import java.util.Map;

/** A service. */
public class J<T> extends B {
  private int h = 1;

  /** Makes it. */
  public J(int h) { this.h = h; }

  // Runs.
  @Override
  public <X> List<X> go(X x) throws IOException { return null; }
}
"""
GO = """\
package p

import (
	"fmt"
	"net/http"
)

type (
	// A is one.
	A struct { x int }
	// B is two.
	B interface { M() }
)

// Add adds.
func (s *Set[T]) Add(x T) (n int, err error) {
	return fmt.Sum(x), nil
}
"""
RUST = """\
use std::collections::HashMap;

struct Foo<T> { x: T }

/// All of Foo.
impl<T: Clone> Foo<T> {
    /// Makes.
    pub fn new(x: T) -> Self where T: Copy { HashMap::new(); Foo { x } }

    /// Gets.
    #[inline]
    fn get(&self) -> &T { &self.x }
}
"""
CPP = """\
#include <vector>

// Twice.
template <typename T>
T* twice(T a) { return new T(a); }

/// Runs bar.
int ns::Foo::bar(int a) const { return baz(a); }
"""
C = """\
/* Names it. */
static const char *
name_of (const Foo *f) /* note */
{
  return f->x ? label (f) : "b";
}

typedef struct Foo {
  int x;
} Foo;
"""
JS = """\
import { read, write as put } from "./io";

exports.foo = function (a) { return read(a); };

Foo.prototype.bar = function bar() {};

class K {
  // on click
  handle = (e) => { return e; };

  /** Adds. */
  add(a, b = "{") { return a + b; }
}

const o = { run() { return 1; }, bar: function () {} };
"""
TS = """\
@Component({ a: 1 })
export class K {
  /** Doc of f. */
  @Input() f(a: string = "{"): void {}

  g = async (x: number): Promise<void> => { await this.f("a"); };
}

export const z = <T,>(a: T): T => a;
"""
# file → (text, {symbol: (kind, signature, docstring, how the chunk's text begins)})
CASES: dict[str, tuple[str, dict[str, tuple[str, str | None, str | None, str]]]] = {
    "a.py": (
        PYTHON,
        {
            "A.f": (
                "method",
                'def f(self, sep=" # ", *, k: int = 1) -> str',
                "Splits at \\d.\n\nIndented.",
                "    # about f",
            ),
            "A.g": ("method", 'def g(a="x: #1")', 'It\'s "g".', "    # about g\n    @static"),
        },
    ),
    "J.java": (
        JAVA,
        {
            "J.J": ("method", "public J(int h)", "Makes it.", "  /** Makes"),
            "J.go": (
                "method",
                "public <X> List<X> go(X x) throws IOException",
                "Runs.",
                "  // Runs.\n  @Override",
            ),
        },
    ),
    "a.go": (
        GO,
        {
            "A": ("class", "A struct", "A is one.", "\t// A is"),
            "B": ("class", "B interface", "B is two.", "\t// B is"),
            "Set.Add": (
                "method",
                "func (s *Set[T]) Add(x T) (n int, err error)",
                "Add adds.",
                "// Add",
            ),
        },
    ),
    "a.rs": (
        RUST,
        {
            "Foo.new": (
                "method",
                "pub fn new(x: T) -> Self where T: Copy",
                "Makes.",
                "    /// Makes.",
            ),
            "Foo.get": ("method", "fn get(&self) -> &T", "Gets.", "    /// Gets.\n    #[inline]"),
        },
    ),
    "a.cpp": (
        CPP,
        {
            "twice": ("function", "T* twice(T a)", "Twice.", "// Twice.\ntemplate"),
            "ns.Foo.bar": ("method", "int ns::Foo::bar(int a) const", "Runs bar.", "/// Runs"),
        },
    ),
    "a.c": (
        C,
        {
            "name_of": (
                "function",
                "static const char * name_of (const Foo *f)",
                "Names it.",
                "/* Names",
            ),
            "Foo": ("type", "typedef struct Foo", None, "typedef"),
        },
    ),
    "a.js": (
        JS,
        {
            "foo": ("function", "exports.foo = function (a)", None, "exports.foo"),
            "Foo.bar": ("method", "Foo.prototype.bar = function bar()", None, "Foo.proto"),
            "K.handle": ("method", "handle = (e)", "on click", "  // on click"),
            "K.add": ("method", 'add(a, b = "{")', "Adds.", "  /** Adds"),
        },
    ),
    "a.ts": (
        TS,
        {
            "K.f": ("method", 'f(a: string = "{"): void', "Doc of f.", "  /** Doc"),
            "K.g": ("method", "g = async (x: number): Promise<void>", None, "  g = async"),
            "z": ("function", "const z = <T,>(a: T): T", None, "export const z"),
        },
    ),
}
# Small enough that the sample's class is opened.
LIMITS = {"a.js": 200, "a.jsx": 200}
CASES["a.jsx"] = CASES["a.js"]
CASES["a.tsx"] = CASES["a.ts"]


def mined(folder: Path, name: str, text: str, limit: int = 100) -> list[Chunk]:
    (folder / name).write_text(text)
    return list(mine.run(folder, max_chars=limit, jobs=1))


@pytest.mark.parametrize("name", CASES)
def test_symbols_kinds_signatures_docstrings(name: str, tmp_path: Path) -> None:
    text, wanted = CASES[name]
    chunks = mined(tmp_path, name, text, LIMITS.get(name, 260))
    assert "".join(chunk.text for chunk in chunks) == text
    found = {
        chunk.symbol: (chunk.kind, chunk.signature, chunk.docstring, chunk.text)
        for chunk in chunks
        if chunk.symbol and chunk.part == 1
    }
    for symbol, (kind, signature, docstring, begins) in wanted.items():
        assert symbol in found
        assert found[symbol][:3] == (kind, signature, docstring)
        assert found[symbol][3].lstrip("\n").startswith(begins)


def test_the_head_of_an_opened_class_says_what_the_class_is(tmp_path: Path) -> None:
    chunks = mined(tmp_path, "a.py", PYTHON, 260)
    of_class = [c for c in chunks if c.symbol == "A"]
    assert [c.signature for c in of_class] == ["class A(Base)", None]
    assert of_class[0].docstring == "Doc of A." and "Doc of A." in of_class[0].text
    assert of_class[1].text.strip() == "x = 1" and of_class[1].header == "class A(Base)"


def test_a_header_holds_the_class_and_only_the_imports_in_use(tmp_path: Path) -> None:
    for name, text, symbol, header in (
        ("a.py", PYTHON, "A.f", "class A(Base)\nimport os"),
        ("J.java", JAVA, "J.go", "public class J<T> extends B\nimport java.util.List;"),
        ("a.go", GO, "Set.Add", 'import "fmt"'),
        ("a.rs", RUST, "Foo.new", "impl<T: Clone> Foo<T>\nuse std::collections::HashMap;"),
        ("a.js", JS, "foo", 'import { read, write as put } from "./io";'),
        ("a.js", JS, "K.add", "class K"),
    ):
        folder = tmp_path / f"{name}.{symbol}"
        folder.mkdir()
        found = {c.symbol: c for c in mined(folder, name, text, LIMITS.get(name, 260))}
        assert found[symbol].header == header


def test_no_chunk_is_a_lone_bracket(tmp_path: Path) -> None:
    for chunk in mined(tmp_path, "J.java", JAVA, 120):
        assert any(letter.isalpha() for letter in chunk.text)


def test_an_object_literal_is_not_torn_at_its_methods(tmp_path: Path) -> None:
    chunks = mined(tmp_path, "a.js", JS, 260)
    assert chunks[-1].text.strip() == JS.strip().splitlines()[-1]
    assert chunks[-1].kind == "module"


def test_markdown_is_cut_at_headings_and_named_by_their_path(tmp_path: Path) -> None:
    text = (
        "intro\n\n# One\n\n" + "words " * 20 + "\n\n## Sub\n\n```py\n# no heading\n```\n\n"
        "Two\n===\n\nend\n"
    )
    chunks = mined(tmp_path, "a.md", text, 200)
    assert [(c.kind, c.symbol) for c in chunks] == [
        ("text", None),
        ("section", "One"),
        ("section", "One.Sub"),
        ("section", "Two"),
    ]
    assert chunks[2].text.startswith("## Sub\n") and "# no heading" in chunks[2].text


def test_a_heading_right_after_a_section_begins_its_own(tmp_path: Path) -> None:
    chunks = mined(tmp_path, "a.md", "# One\n\ntext one\n\n# Two\n\ntext two\n", 100)
    assert [c.text for c in chunks] == ["# One\n\ntext one\n\n", "# Two\n\ntext two\n"]


def test_a_header_file_of_cpp_is_not_read_as_c(tmp_path: Path) -> None:
    (tmp_path / "c.h").write_text("int f(int a);\nstruct K { int x; };\n")
    chunks = mined(tmp_path, "p.h", "class Foo {\n public:\n  int bar() { return 1; }\n};\n")
    assert {c.path: c.language for c in chunks} == {"c.h": "c", "p.h": "cpp"}
    assert "Foo" in {c.symbol for c in chunks}


def test_crlf_and_bom_leave_the_facts_alone(tmp_path: Path) -> None:
    text = (
        "\ufeffdef f(a,\r\n      b=1):\r\n"
        '    """One.\r\n\r\n    Two.\r\n    """\r\n    return a\r\n'
    )
    (tmp_path / "a.py").write_bytes(text.encode())
    (chunk,) = mine.run(tmp_path)
    assert chunk.text == text
    assert (chunk.symbol, chunk.signature) == ("f", "def f(a, b=1)")
    assert chunk.docstring == "One.\n\nTwo."
    assert (chunk.start_line, chunk.end_line) == (1, 7)


@pytest.mark.parametrize(
    ("name", "text", "symbol", "signature"),
    [
        # With no body, over several lines.
        ("a.kt", "external fun f(\n  a: Int,\n): Int\n", "f", "external fun f( a: Int, ): Int"),
        ("a.swift", "protocol P {\n  func f(_ a: A,\n         b: B)\n}\n", "P", "protocol P"),
        ("a.kt", "class A(val f: () -> Unit = { g() }) : B()\n", "A", None),
        # What follows a body and names it; what initialises before it.
        ("a.h", "typedef struct {\n  int x;\n} P;\n", "P", "typedef struct P"),
        ("a.cc", "A::A(int a) : b(a), c{1} {}\n", "A.A", "A::A(int a)"),
        ("a.cc", "A:: ~A() {}\n", "A.~A", "A:: ~A()"),
        ("A.java", "@X(1)\n@Y public final class A {}\n", "A", "public final class A"),
    ],
)
def test_where_a_signature_ends(
    tmp_path: Path, name: str, text: str, symbol: str, signature: str | None
) -> None:
    found = {chunk.symbol: chunk.signature for chunk in mined(tmp_path, name, text)}
    assert found[symbol] == (signature or text.strip())


def test_a_frame_is_no_part_of_what_a_comment_says(tmp_path: Path) -> None:
    text = "/*********\n * Goes. *\n *********/\nvoid go() {}\n"
    (chunk,) = mined(tmp_path, "a.c", text)
    assert chunk.docstring == "Goes. *"
    (chunk,) = mined(tmp_path, "a.c", "// =====\n// Goes.\n// =====\nvoid go() {}\n")
    assert chunk.docstring == "Goes."
