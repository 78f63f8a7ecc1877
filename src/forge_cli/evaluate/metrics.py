"""Scores of one answer; each is between 0 and 1."""

from __future__ import annotations

import re
from collections import Counter

from forge_cli.core.answer_form import is_abstention, read_answer
from forge_cli.core.records import Example

# What is read of the scores under each condition.
_ALL = ("answer_f1", "quote_correct", "abstention")
METRICS = {
    "given": _ALL,
    "oracle": _ALL,
    "distractors": ("quote_correct", "abstention"),
    "closed_book": ("answer_f1",),
    "retrieved": ("answer_f1", "quote_correct"),
}


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
    """The scores of a generated answer, by what its reference does: answer or abstain.

    answer_f1: word F1 of the final answer; where abstaining is right, 1 when it abstains.
    quote_correct: 1 when there are quotes and each stands verbatim in a document that holds the
        answer (an oracle, or one with the reference's quotes in it); where abstaining is right,
        1 when nothing is quoted.
    abstention: 1 when it abstains exactly if that is right.
    """
    answer = read_answer(text)
    abstains, quotes = is_abstention(answer.final), [quote.text for quote in answer.quotes]
    if is_abstention(example.answer.final):
        return {
            "answer_f1": float(abstains),
            "quote_correct": float(not quotes),
            "abstention": float(abstains),
        }
    wanted = [quote.text for quote in example.answer.quotes]
    holders = [
        document.text
        for document in example.documents
        if document.oracle or (wanted and all(quote in document.text for quote in wanted))
    ]
    found = all(any(quote in text for text in holders) for quote in quotes)
    return {
        "answer_f1": f1(answer.final, example.answer.final),
        "quote_correct": float(bool(quotes) and found),
        "abstention": float(not abstains),
    }
