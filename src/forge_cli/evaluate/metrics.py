"""Scores of one answer; each is between 0 and 1."""

from __future__ import annotations

import re
from collections import Counter

from forge_cli.core.answer_form import is_abstention, read_answer
from forge_cli.core.records import Example


def words(text: str) -> list[str]:
    """Identifiers, numbers and words, lower case."""
    return re.findall(r"\w+", text.lower())


def f1(answer: str, reference: str) -> float:
    """Word-overlap F1, as in SQuAD (arXiv 1606.05250, section 6.1)."""
    given, wanted = Counter(words(answer)), Counter(words(reference))
    if not given or not wanted:
        # No words on either side (such as `...` or `()`): compare the text itself.
        return float(answer.strip(" `") == reference.strip(" `"))
    shared = sum((given & wanted).values())
    if not shared:
        return 0.0
    precision, recall = shared / sum(given.values()), shared / sum(wanted.values())
    return 2 * precision * recall / (precision + recall)


def score(example: Example, text: str) -> dict[str, float]:
    """The scores of a generated answer.

    answer_f1: word F1 of the final answer; on rows without the oracle it is 1 when the
        answer abstains, else 0.
    quote_correct: with an oracle, 1 when there are quotes and each stands verbatim in an
        oracle document; without one, 1 when nothing is quoted.
    abstention: 1 when it abstains exactly if no oracle is shown.
    """
    answer = read_answer(text)
    oracles = [document.text for document in example.documents if document.oracle]
    abstains = is_abstention(answer.final)
    if oracles:
        quotes = [quote.text for quote in answer.quotes]
        found = all(any(quote in text for text in oracles) for quote in quotes)
        return {
            "answer_f1": f1(answer.final, example.answer.final),
            "quote_correct": float(bool(quotes) and found),
            "abstention": float(not abstains),
        }
    return {
        "answer_f1": float(abstains),
        "quote_correct": float(not answer.quotes),
        "abstention": float(abstains),
    }
