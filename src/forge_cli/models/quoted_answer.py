"""Greedy answers whose quotes cannot be false: a logits processor holds them to the documents."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from forge_cli.core.answer_form import BEGIN
from forge_cli.core.records import Message
from forge_cli.models.backend import mx
from forge_cli.models.chat import prompt_ids
from forge_cli.models.load import Loaded
from forge_cli.models.quoting import Place, QuoteRule
from forge_cli.models.token_bytes import token_bytes

# Tokens that are tried at once, the likeliest first.
_BLOCK = 16
_NO_TEXT = 256  # in place of a byte


@dataclass(frozen=True)
class QuotedAnswer:
    """What a model wrote.

    Attributes:
        tokens: without the end-of-turn token. whole: the model ended it, not the limit.
    """

    text: str
    prompt_tokens: int
    tokens: int
    whole: bool


class TrueQuotes:
    """A logits processor (mlx-lm's protocol) for one answer.

    Outside of quotes all tokens stay as likely as they are, but those that would open a false
    one. In an open quote only tokens are left by which it stays a span of a document, or ends:
    of the likeliest such ones as many as a block holds. Where no token is left, in a vocabulary
    without single bytes, the end of turn is.

    Args:
        spelled: by id, the bytes of a token; None: it is no text.
        ends: end-of-turn tokens.
    """

    def __init__(self, rule: QuoteRule, spelled: Sequence[bytes | None], ends: set[int]) -> None:
        self._rule, self._spelled, self._ends = rule, spelled, sorted(ends)
        self._first = np.array([text[0] if text else _NO_TEXT for text in spelled])
        # A token that is a whole mark can open a quote from anywhere.
        self._has_whole_mark = any(text and BEGIN.encode() in text for text in spelled)
        self._place = Place()
        self._read_prompt = False

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Logits [1, V] of the next token, those that may not come at -inf.

        Args:
            tokens: all ids so far, the prompt's among them.
        """
        if self._read_prompt:
            token = int(np.array(tokens[-1]))
            text = self._spelled[token] if token < len(self._spelled) else None
            self._place = self._rule.advance(self._place, text or b"") or Place()
        self._read_prompt = True
        if not (self._place.quoting or self._place.mark_begun or self._has_whole_mark):
            return logits
        values = np.array(logits[0].astype(mx.float32))
        mask = self._in_quote(values) if self._place.quoting else self._outside(values)
        return logits + mx.array(mask).astype(logits.dtype)

    def _in_quote(self, values: np.ndarray) -> np.ndarray:
        mask = np.full(len(values), -np.inf, dtype=np.float32)
        may_follow = np.zeros(_NO_TEXT + 1, dtype=bool)
        may_follow[list(self._rule.next_bytes(self._place))] = True
        near = np.flatnonzero(may_follow[self._first[: len(values)]])
        fitting = ([t for t in block if self._fits(t)] for block in _blocks(near, values))
        mask[next((found for found in fitting if found), self._ends)] = 0
        return mask

    def _outside(self, values: np.ndarray) -> np.ndarray:
        mask = np.zeros(len(values), dtype=np.float32)
        everything = np.arange(min(len(values), len(self._spelled)))
        for block in _blocks(everything, values):
            refused = [token for token in block if not self._fits(token)]
            mask[refused] = -np.inf
            if len(refused) < len(block):
                break
        return mask

    def _fits(self, token: int) -> bool:
        return self._rule.advance(self._place, self._spelled[token] or b"") is not None


def _blocks(tokens: np.ndarray, values: np.ndarray) -> Iterator[list[int]]:
    """The tokens by falling logit, some at a time."""
    ordered = tokens[np.argsort(-values[tokens], kind="stable")]
    for start in range(0, len(ordered), _BLOCK):
        yield ordered[start : start + _BLOCK].tolist()


def answer_with_quotes(
    loaded: Loaded, prompt: Sequence[Message], documents: Sequence[str], max_tokens: int
) -> QuotedAnswer:
    """The greedy answer to a chat that shows `documents`; each quote in it is verbatim from them.

    The limit may cut off the last one.
    """
    from mlx_lm.generate import generate_step

    spelled, ends = token_bytes(loaded.tokenizer), set(loaded.tokenizer.eos_token_ids)
    ids = prompt_ids(loaded.tokenizer, prompt)
    held = TrueQuotes(QuoteRule(documents), spelled, ends)
    text, count, whole = bytearray(), 0, False
    for token, _ in generate_step(
        mx.array(ids), loaded.model, max_tokens=max_tokens, logits_processors=[held]
    ):
        if token in ends:
            whole = True
            break
        count += 1
        text += (spelled[token] if token < len(spelled) else None) or b""
    mx.clear_cache()
    # Without a character that the limit cut.
    decoded = codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(text))
    return QuotedAnswer(decoded, len(ids), count, whole)
