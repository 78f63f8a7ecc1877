"""Quotes that cannot be false: whatever a model would rather say, they stand in the documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forge_cli.core.answer_form import BEGIN, END, quote_spans, show_documents, write_answer
from forge_cli.core.records import Answer, Document, Message, Quote
from forge_cli.models.backend import mx
from forge_cli.models.chat import prompt_ids
from forge_cli.models.load import load_dense, load_tokenizer
from forge_cli.models.quoted_answer import TrueQuotes, answer_with_quotes
from forge_cli.models.quoting import Place, QuoteRule
from forge_cli.models.token_bytes import token_bytes
from tiny_sentencepiece import save_sentencepiece
from tiny_train import save_model

DOCUMENTS = [
    'def parse(path: str) -> dict:\n    """Reads naïve café — 日本語 🙂🙂."""\n    return {}',
    "a = 1\r\nb = 1\r\n\r\n\tc = a + b  # 12345\r\nd = '…'",
    "xx xx xx xx\nxx xx xx\n" * 4 + "xy",
    f"QUOTE = '{BEGIN}'\nENDS = '{END}'  # ## #\n##Answer: none\n    }}\n)",
    "\n  indented\n   \n    \n  }\n",
]
OPENING = f"##Reason: It stands in document [1].\n{BEGIN}\n"


class Tokens:
    """A tokenizer and what is known of it."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.spelled = token_bytes(self.tokenizer)
        self.ends = set(self.tokenizer.eos_token_ids)

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=["bytes", "sentencepiece"])
def tokens(request: Any, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    if request.param == "bytes":
        return Tokens(model)
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("pieces")
    save_sentencepiece(folder, prefix=False)
    loaded = PreTrainedTokenizerFast.from_pretrained(folder)
    assert loaded.backend_tokenizer
    return Tokens(folder)


def says_only_what_is_there(text: str, documents: list[str]) -> int:
    """Checks the quotes of an answer; how many there are."""
    quotes = [quote for is_quote, quote in quote_spans(text) if is_quote]
    for quote in quotes:
        assert any(quote in document for document in documents), (quote, text)
    return len(quotes)


def written(tokens: Tokens, documents: list[str], seed: int, opening: str) -> tuple[str, bool]:
    """A closed answer of random tokens behind an opening, and whether its quote was closed."""
    rule = QuoteRule(documents, longest=40)
    held = TrueQuotes(rule, tokens.spelled, tokens.ends)
    random = np.random.default_rng(seed)
    ids = [0]
    forced: Iterator[int] = iter(tokens.ids(opening))
    text = b""
    for _ in range(200):
        logits = random.standard_normal((1, len(tokens.spelled) + 7)).astype(np.float32) * 5
        after = np.array(held(mx.array(ids), mx.array(logits)))[0]
        token = next(forced, None)
        if token is None:
            token = int(after.argmax())
            assert np.isfinite(after[token])
        ids.append(token)
        text += tokens.spelled[token] or b"" if token < len(tokens.spelled) else b""
        if END.encode() in text[len(opening) - 1 :] or token in tokens.ends:
            break
    return text.decode(), END.encode() in text[len(opening) - 1 :]


def test_any_quote_of_a_random_model_stands_in_a_document(tokens: Tokens) -> None:
    for seed in range(12):
        for shown in ([DOCUMENTS[seed % 5]], DOCUMENTS):
            opening = OPENING if seed % 3 else OPENING.rstrip()
            text, closed = written(tokens, shown, seed, opening)
            assert closed, text
            assert says_only_what_is_there(text, shown) == 1


def test_every_span_may_be_quoted_as_training_writes_it(tokens: Tokens) -> None:
    """Token by token as the tokenizer cuts it, which joins marks and text in its own way."""
    rule, random = QuoteRule(DOCUMENTS), np.random.default_rng(0)
    quoted = 0
    for document in DOCUMENTS:
        for _ in range(30):
            start, end = sorted(random.integers(0, len(document) + 1, 2))
            span = document[start:end].strip("\n")
            readable = any(span in part for part in document.split(END))
            if not any(c.isalnum() for c in span) or not readable or span != span.rstrip():
                continue
            answer = Answer(reason="So.", quotes=[Quote(document="", text=span)], final="x")
            place: Place | None = Place()
            for token in tokens.ids(write_answer(answer)):
                assert place is not None
                place = rule.advance(place, tokens.spelled[token] or b"")
                assert place is not None, (span, tokens.spelled[token])
            assert place is not None and not place.quoting
            quoted += 1
    assert quoted > 50


def test_bytes_of_tokens_are_the_text(tokens: Tokens) -> None:
    text = "".join(DOCUMENTS) + "\x00\x7f\u2581"
    ids = tokens.ids(text.replace("\u2581", ""))
    assert b"".join(tokens.spelled[i] or b"" for i in ids).decode() == text.replace("\u2581", "")
    assert all(tokens.spelled[end] is None for end in tokens.ends)


@pytest.mark.parametrize(
    ("body", "may"),
    [
        ("\ndef parse", True), ("def parse", True), ("\n\ndef parse", False), ("xx xy", False),
        ("b = 1\r\n", True), ("b = 1\n\n", False), (f"def{END}", True), (f"\n{END}", False),
        (f" {END}", False), (f"\ndef\n{END}\n##Answer: y", True), (f"def\n\n{END}", False),
        (f"a = 1{END} or {BEGIN}zz", False), (f"QUOTE = '{BEGIN}'\nENDS", True),
        (f"ENDS = '{END}", True), (f"ENDS = '{END}'  # ##", True), ("{}a = 1", False),
    ],
)  # fmt: skip
def test_what_may_stand_behind_the_mark(body: str, may: bool) -> None:
    rule = QuoteRule(DOCUMENTS)
    place = rule.advance(Place(), f"Now {BEGIN}".encode())
    assert place is not None and place.quoting
    assert (rule.advance(place, body.encode()) is not None) == may
    bytewise: Place | None = place
    for byte in body.encode():
        bytewise = rule.advance(bytewise, bytes([byte])) if bytewise else None
    assert (bytewise is not None) == may


def test_a_character_is_quoted_whole() -> None:
    rule = QuoteRule(["é日"])
    opened = rule.advance(Place(), BEGIN.encode())
    assert opened is not None
    assert rule.advance(opened, "日".encode()[1:]) is None
    half = rule.advance(opened, "é日".encode()[:-1])
    assert half is not None and rule.advance(half, END.encode()) is None
    assert rule.advance(half, "日".encode()[-1:] + END.encode()) is not None


class Forced:
    """Makes a model begin its answer so: the quote is opened, then it says what it likes."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = iter(ids)

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        token = next(self.ids, None)
        if token is None:
            return logits
        only = np.full(logits.shape, -np.inf, dtype=np.float32)
        only[0, token] = 0
        return mx.array(only)


def test_a_real_model_that_is_made_to_quote(model: Path) -> None:
    """Through mlx-lm's own loop; without the processor it says something else."""
    from mlx_lm.generate import generate_step

    loaded, known = load_dense(str(model)), Tokens(model)
    shown = [
        Document(id=str(n), path="a.py", text=t, oracle=False) for n, t in enumerate(DOCUMENTS)
    ]
    chat = [Message(role="user", content=show_documents(shown, "What is parsed?"))]
    ids = prompt_ids(loaded.tokenizer, chat)
    for hold in (True, False):
        rule = TrueQuotes(QuoteRule(DOCUMENTS, longest=30), known.spelled, known.ends)
        processors: list[Any] = [Forced(known.ids(OPENING)), *([rule] if hold else [])]
        text = b""
        for token, _ in generate_step(
            mx.array(ids), loaded.model, max_tokens=90, logits_processors=processors
        ):
            text += known.spelled[token] or b""
            if END.encode() in text or token in known.ends:
                break
        if hold:
            assert END.encode() in text and says_only_what_is_there(text.decode(), DOCUMENTS) == 1
        else:
            quote = quote_spans(text.decode(errors="replace"))[1][1]
            assert not any(quote in document for document in DOCUMENTS)
    found = answer_with_quotes(loaded, chat, DOCUMENTS, 12)
    assert 0 < found.tokens <= 12 and found.prompt_tokens == len(ids)
