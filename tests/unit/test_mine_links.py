"""Mining: calls are linked where one definition can be meant, and else not."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_cli import mine


def linked(root: Path, **files: str) -> dict[str, tuple[list[str], list[str]]]:
    """symbol (with its file where it is not alone) → (called_by, tests)."""
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found: dict[str, tuple[list[str], list[str]]] = {}
    for chunk in mine.run(root, max_chars=80):
        if chunk.part == 1 and chunk.symbol and chunk.signature:
            name = f"{chunk.path}:{chunk.symbol}" if chunk.symbol in found else chunk.symbol
            found[name] = (chunk.called_by, chunk.tests)
    return found


CACHE = (
    "class Cache:\n    def get(self, k):\n        return self.load(k)\n\n"
    "    def load(self, k):\n        return k\n\n    def evict(self):\n        return None\n"
)


def test_the_same_file_goes_before_the_repository(tmp_path: Path) -> None:
    found = linked(
        tmp_path,
        a="def f():\n    return 1\n\n\ndef g():\n    return f()\n",
        b="def f():\n    return 2\n\n\ndef h():\n    return f()\n",
    )
    assert found["f"] == (["g"], []) and found["b.py:f"] == (["h"], [])


def test_an_ambiguous_name_is_left_alone(tmp_path: Path) -> None:
    found = linked(
        tmp_path, a="def f():\n    return 1\n", b="def f():\n    return 2\n", c="def g(): f()\n"
    )
    assert found["f"] == ([], []) and found["b.py:f"] == ([], [])


def test_the_only_one_in_the_repository_is_linked_and_tests_apart(tmp_path: Path) -> None:
    found = linked(
        tmp_path,
        a="def f():\n    return 1\n",
        b="from a import f\n\n\ndef g():\n    return f()\n",
        c="def h():\n    return f()\n",
        d="from a import *\n\n\ndef k():\n    return f()\n",
        tests__test_a="from a import f\n\n\ndef test_f():\n    assert f()\n",
    )
    assert found["f"] == (["g", "k"], ["test_f"]), "c imports no f: its f is another"


def test_a_module_s_function_is_no_method_of_that_name(tmp_path: Path) -> None:
    found = linked(
        tmp_path,
        a="class Page:\n    def render_all(self):\n        return 1\n" + "    # pad\n" * 20,
        b="import jinja\n\n\ndef g():\n    return jinja.render_all()\n",
        c="def h(page):\n    return page.render_all()\n",
    )
    assert found["Page.render_all"] == (["h"], [])


def test_self_means_the_class(tmp_path: Path) -> None:
    other = CACHE.replace("Cache", "Store")
    found = linked(tmp_path, a=CACHE + "\n\n" + other)
    assert found["Cache.load"] == (["Cache.get"], [])
    assert found["Store.load"] == (["Store.get"], [])


def test_a_dictionary_is_not_a_cache(tmp_path: Path) -> None:
    found = linked(
        tmp_path,
        a=CACHE,
        b="def g(d):\n    return d.get(1)\n",
        c="def h(c):\n    return c.evict()\n",
        d="def i(c):\n    return Cache.get(c, 1)\n",
    )
    assert found["Cache.get"] == (["i"], []), "d.get(1) may be any mapping's"
    assert found["Cache.evict"] == (["h"], [])


def test_a_module_of_another_name_is_not_meant(tmp_path: Path) -> None:
    found = linked(
        tmp_path,
        codec="def dumps(x):\n    return x\n",
        b="import json\n\n\ndef g(x):\n    return json.dumps(x)\n",
        c="import codec\n\n\ndef h(x):\n    return codec.dumps(x)\n",
    )
    assert found["dumps"] == (["h"], [])


def test_making_an_object_calls_the_class_that_was_opened(tmp_path: Path) -> None:
    found = linked(tmp_path, a=CACHE, b="from a import Cache\n\n\ndef g():\n    return Cache()\n")
    assert found["Cache"] == (["g"], [])


def test_a_part_does_not_call_its_own_function(tmp_path: Path) -> None:
    body = "".join(f"    x = {number} + f(x - 1)\n" for number in range(20))
    found = linked(tmp_path, a=f"def f(x):\n{body}    return x\n")
    assert found["f"] == ([], [])


def test_names_that_a_grammar_only_supposes_are_no_names(tmp_path: Path) -> None:
    """Valid C++ in which the grammar puts an identifier of no characters."""
    (tmp_path / "a.hpp").write_text("enum : unsigned {\n  Bits = 1,\n};\n")
    (tmp_path / "b.hpp").write_text(
        "class K {\n MACRO size_t operator->() const\n  { return __bit; }\n\n"
        " MACRO int operator&() const\n  { return 1; }\n};\n"
    )
    for chunk in mine.run(tmp_path):
        assert chunk.symbol != "" and "" not in chunk.calls


def test_a_name_that_is_everywhere_is_linked_in_its_own_file_alone(tmp_path: Path) -> None:
    for number in range(150):
        (tmp_path / f"m{number}.py").write_text(
            f"def run():\n    return 1\n\n\ndef go{number}():\n    return run()\n"
        )
    (tmp_path / "z.py").write_text("def other():\n    return run()\n")
    chunks = list(mine.run(tmp_path, jobs=1))
    for chunk in chunks:
        if chunk.symbol == "run":
            assert chunk.called_by == [f"go{chunk.path[1:-3]}"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("A.java", "class A { int f() { return g(); } int g() { return 1; } }"),
        ("a.cs", "class A { int f() { return g(); } int g() { return 1; } }"),
        ("a.kt", "class A {\n fun f() = g()\n fun g() = 1\n}"),
        ("a.swift", "class A {\n func f() { g() }\n func g() {}\n}"),
        ("a.scala", "class A {\n def f() = g()\n def g() = 1\n}"),
        ("a.rb", "class A\n def f\n  g()\n end\n def g; end\nend"),
        ("a.php", "<?php class A { function f() { $this->g(); } function g() {} }"),
        ("a.sh", "f() {\n  g x\n}\ng() {\n  :\n}"),
        ("a.lua", "local function f() return g(1) end\nfunction g(x) end"),
    ],
)
def test_a_method_calls_another_of_its_class(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(f"{text}\n")
    found = {c.symbol: c.called_by for c in mine.run(tmp_path, max_chars=40, jobs=1)}
    own, other = ("A.f", "A.g") if "A.g" in found else ("f", "g")
    assert found[other] == [own]
