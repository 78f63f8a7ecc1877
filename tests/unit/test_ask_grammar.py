"""The grammar that holds a llama-server to true quotes: all spans of the documents, no others."""

from __future__ import annotations

import random
import re
from pathlib import Path

from forge_cli.ask.answerers import ServerAnswerer
from forge_cli.ask.grammar import answer_grammar
from forge_cli.core.answer_form import BEGIN, END, quote_spans
from forge_cli.core.records import Message
from forge_cli.export.gguf import write_gguf
from forge_cli.models.llama_server import LlamaServer
from forge_cli.teachers.openai import OpenAITeacher
from tiny_gguf import as_weights, random_weights, save_tokenizer, tiny_config
from tiny_train import TEMPLATE

DOCUMENTS = [
    'def f(x):\r\n\treturn "naïve 日本\\n"  # 🙂',
    f"abcbc abcbd bcbc\nA = '{END}'\x0c\n]",
    "abcbc abcbd",
]


def accepts(rules: dict[str, list[tuple[str, str]]], span: str) -> bool:
    """Whether a quote of these rules may be `span`."""
    state = "s0"
    for sign in span:
        follows = [after for letter, after in rules[state] if letter == sign]
        if len(follows) != 1:
            return False
        state = follows[0]
    return ("", "end") in rules[state]


def read(grammar: str) -> dict[str, list[tuple[str, str]]]:
    rules = {}
    for line in grammar.split("\n"):
        name, _, body = line.partition(" ::= ")
        if re.fullmatch(r"s\d+", name):
            ways = re.findall(r'(?:"((?:\\.|[^"\\])(?:[0-9A-F]{2})?)" )?(s\d+|end)', body)
            rules[name] = [(_unescaped(letter), after) for letter, after in ways]
    return rules


def _unescaped(letter: str) -> str:
    return letter.encode("latin-1", "backslashreplace").decode("unicode_escape")


def test_it_takes_all_spans_and_no_others() -> None:
    rules, rng = read(answer_grammar(DOCUMENTS)), random.Random(0)
    parts = [part for text in DOCUMENTS for part in text.split(END)]
    assert len(rules) <= 2 * sum(map(len, parts))
    for _ in range(400):
        part = rng.choice(parts)
        start, end = sorted(rng.sample(range(len(part) + 1), 2))
        assert accepts(rules, part[start:end]), part[start:end]
        changed = part[start:end] + rng.choice("ab c\n\x0c")
        assert accepts(rules, changed) == any(changed in own for own in parts), changed
    assert not accepts(rules, "") and not accepts(rules, END)


def test_a_real_llama_server_keeps_to_it(tmp_path: Path) -> None:
    """A random model, which is made to quote: without the grammar it says something else."""
    config = tiny_config("llama", save_tokenizer(tmp_path, "smollm"), num_hidden_layers=1)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    file = write_gguf(
        tmp_path / "tiny.gguf", config=config, tokenizer_dir=tmp_path,
        weights=as_weights(random_weights(config)), quant="q8_0", name="tiny", metadata={},
    )  # fmt: skip
    with LlamaServer(file, 1024, threads=1) as server:
        teacher = OpenAITeacher("openai:tiny", "tiny", f"{server.url}/v1")
        answerer = ServerAnswerer(teacher)
        assert answerer._is_llama_server()
        free = answerer.answer([Message(role="user", content="f?")], DOCUMENTS)
        assert free.text.startswith("##Reason: ") and teacher.extra["grammar"]
        rules = teacher.extra["grammar"].split("\n")
        rules[:3] = ['root ::= "So" quote quote "\\n##Answer: x"']
        teacher.extra = {"grammar": "\n".join(rules)}
        teacher.max_tokens = 400
        for asked in ("f?", "What is A?"):
            forced = answerer._ask([Message(role="user", content=asked)])
            assert not forced.error
            quotes = [text for is_quote, text in quote_spans(forced.text) if is_quote]
            assert quotes and all(any(q in text for text in DOCUMENTS) for q in quotes), forced
            assert BEGIN in forced.text
