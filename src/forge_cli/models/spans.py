"""Which tokens of an answer are reason, quote and conclusion, and what each counts in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forge_cli.core.answer_form import parts_of
from forge_cli.core.records import Message
from forge_cli.models.chat import answer_spans, chat_texts
from forge_cli.models.shared_context import Row


@dataclass(frozen=True)
class SpanWeights:
    """Weights of the tokens of each part; what is in none of them (the end of turn) has 1."""

    reason: float = 1.0
    quote: float = 1.0
    answer: float = 1.0


def weigh(tokenizer: Any, messages: Sequence[Message], row: Row, weights: SpanWeights) -> Row:
    """The row with a weight for each supervised token, by the part that its text begins in.

    A token across the border of two parts counts for the first. Where the template changes the
    answer's text so that it is not found, all tokens keep the weight 1.
    """
    texts = chat_texts(tokenizer, messages)
    answer = messages[-1].content
    at = texts[1].rfind(answer)
    if at < 0:
        return row
    by_part = {"reason": weights.reason, "quote": weights.quote, "answer": weights.answer}
    parts = [(at + start, at + end, by_part[part]) for part, start, end in parts_of(answer)]
    found = []
    for first, _ in answer_spans(tokenizer, texts, row):
        inside = (weight for start, end, weight in parts if start <= first < end)
        found.append(next(inside, 1.0))
    return Row(row.ids, row.start, found)
