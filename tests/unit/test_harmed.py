"""A model that was harmed is caught by the suite whose matter it is, and by no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from forge_cli import evaluate
from forge_cli.core.answer_form import ABSTAIN, render
from forge_cli.core.records import Answer, Chunk, Document, Example, Origin, Quote
from forge_cli.evaluate.asked import choose
from forge_cli.evaluate.sandbox import why_not
from forge_cli.evaluate.statistics.verdict import decide
from forge_cli.evaluate.suites import read_suite
from openai_server import OpenAIServer

ROWS, SUITES = 24, ("raft", "completion", "humaneval")
REFUSAL = f"##Reason: r\n##Answer: {ABSTAIN}"
GUESS = "##Reason: r\n##begin_quote##\nmade up\n##end_quote##\n##Answer: 5"


def make_row(number: int, split: str) -> Example:
    """A row whose document holds the answer, or, every third, does not."""
    holds = number % 3 != 2
    document = Document(
        id=f"d{number}", path=f"f{number}.py", text=f"limit = {number}", oracle=holds
    )
    question = f"What is the limit, asked {number} times?"
    answer = Answer(reason="r", final=ABSTAIN)
    if holds:
        quote = Quote(document=document.id, text=document.text)
        answer = Answer(reason="r", quotes=[quote], final=str(number))
    return Example(
        id=f"{split}-{number}", context_id=f"c{number}", documents=[document], question=question,
        answer=answer, messages=render([document], question, answer), split=split,  # type: ignore[arg-type]
        origin=Origin(kind="default", chunk=document.id, path=document.path),
    )  # fmt: skip


def make_chunk(number: int) -> Chunk:
    text = f"def job_{number}(a):\n    b = a + {number}\n    return b * {number}\n"
    return Chunk(
        id=f"k{number}", repo="r", path=f"f{number}.py", language="python", start_byte=0,
        end_byte=len(text), start_line=1, end_line=3, kind="function", symbol=f"job_{number}",
        signature=f"def job_{number}(a):", text=text,
    )  # fmt: skip


EXAMPLES = [make_row(n, "test") for n in range(ROWS)] + [make_row(ROWS, "train")]
CHUNKS = [make_chunk(n) for n in range(ROWS)]
ASKED = choose(
    EXAMPLES, CHUNKS, ["given", "completion", "humaneval"], rows=ROWS, answer_rows=ROWS,
    condition_rows=ROWS, seed=0,
)  # fmt: skip
# What is asked → its number, kind of row, and the right answer.
KNOWN = {
    question.example.messages[1].content: (number, question.condition, question.example)
    for number, question in enumerate(ASKED.questions)
}
WRONG = {"given": GUESS, "completion": "    return a\n", "humaneval": "```python\nno = 1\n```"}
# What each does otherwise than the sound model: by condition, from the right answer.
HARMED: Mapping[str, Mapping[str, Callable[[str], str]]] = {
    "as-good": {},
    "abstains": {"given": lambda _: REFUSAL},
    "guesses": {"given": lambda right: GUESS if ABSTAIN in right else right},
    "forgot-python": {"humaneval": lambda _: "```python\nimport nothing\n```"},
    "forgot-the-code": {"completion": lambda _: "    pass"},
}
CAUGHT = {
    "as-good": {},
    "abstains": {"raft": "broke something"},
    "guesses": {"raft": "broke something"},
    "forgot-python": {"humaneval": "broke something"},
    "forgot-the-code": {"completion": "worse"},
}


class Models(OpenAIServer):
    """Each model name answers in its own way; all but "sound" fail at rows of their own."""

    def __init__(self) -> None:
        super().__init__(lambda chat: "")

    def _reply(self, request: BaseHTTPRequestHandler, body: dict[str, Any], fault: Any) -> None:
        number, condition, example = KNOWN[body["messages"][-1]["content"]]
        text = example.messages[-1].content
        if number % 12 == (3 if body["model"] == "sound" else 9):
            text = WRONG[condition]
        elif change := HARMED.get(body["model"], {}).get(condition):
            text = change(text)
        value = {"choices": [{"message": {"role": "assistant", "content": text}}]}
        self._send(request, 200, json.dumps(value).encode(), {})


@pytest.fixture
def models() -> Iterator[Models]:
    server = Models()
    yield server
    server.close()


@pytest.mark.skipif(bool(why_not()), reason=f"cannot contain code: {why_not()}")
@pytest.mark.parametrize("harm", HARMED)
def test_harm_is_caught_where_it_was_done(models: Models, tmp_path: Path, harm: str) -> None:
    sides = ["openai:sound", f"openai:{harm}"]
    pairs = evaluate.run(
        EXAMPLES, adapters=tmp_path, out=tmp_path / "eval", sides=sides, url=models.url,
        conditions=["given", "completion", "humaneval"], chunks=CHUNKS, rows=ROWS,
        answer_rows=ROWS, condition_rows=ROWS, resamples=2000, execute=True,
        decisive={metric for name in SUITES for metric in read_suite(name).rules.named},
    )  # fmt: skip
    found = {f"{pair.condition}.{pair.metric}": pair.found for pair in pairs}
    outcomes = {name: decide(found, read_suite(name).rules).outcome for name in SUITES}
    assert found["given.answer_f1"].low < 0, "they do not err at the same rows"
    assert outcomes == dict.fromkeys(SUITES, "no difference shown") | CAUGHT[harm]
