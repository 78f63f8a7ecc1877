"""Scores of one answer; each is between 0 and 1, and more is better."""

from __future__ import annotations

from forge_cli.core.answer_form import is_abstention, is_open, read_answer
from forge_cli.core.records import Example
from forge_cli.evaluate.humaneval import passes
from forge_cli.evaluate.metrics.code import completion_scores
from forge_cli.evaluate.metrics.exact import CODE, NAMES, exact_match, names_of
from forge_cli.evaluate.metrics.quotes import count_quotes
from forge_cli.evaluate.metrics.text import chrf, edit_similarity, set_f1, word_f1

# What is read of the scores under each condition.
_ALL = (
    "answer_f1", "exact_match", "quote_correct", "quote_precision", "quote_recall", "abstention",
    "edit_similarity", "chrf",
)  # fmt: skip
METRICS = {
    "given": _ALL,
    "reworded": _ALL,
    "unseen": _ALL,
    "later": _ALL,
    "oracle": _ALL,
    "distractors": ("quote_correct", "abstention"),
    "closed_book": ("answer_f1", "exact_match", "edit_similarity"),
    "completion": ("exact_match", "edit_similarity", "chrf", "parses"),
    "humaneval": ("pass@1", "pass@10", "pass@100"),
    "repo_tests": ("tests_pass",),
    "retrieved": ("answer_f1", "exact_match", "quote_correct", "edit_similarity"),
}
# What the loss is called under a condition: of answers, or of the text of files.
LOSSES = {
    "given": "answer_loss", "unseen": "answer_loss", "later": "answer_loss", "perplexity": "loss",
}  # fmt: skip
# Seconds by the clock, of condition "latency".
TIMES = ("first_token_seconds", "token_seconds")


def score(example: Example, text: str) -> dict[str, float]:
    """The scores of a generated answer, by what its reference does: answer or abstain.

    answer_f1: of the final answer: of names where the kind asks for a list of them, else of
        words; where abstaining is right, 1 when it abstains.
    exact_match: see `metrics.exact`.
    quote_correct: 1 when there are quotes and each stands verbatim in a document that holds the
        answer; where abstaining is right, 1 when nothing is quoted. 0 where a quote has no end.
    quote_precision, quote_recall: see `metrics.quotes`; only where there is something to quote.
    abstention: 1 when it abstains exactly if that is right.
    edit_similarity, chrf: only of code.

    A definition that is to be completed has other scores, see `metrics.code`; a problem of
    HumanEval has pass@1, for which the answer is run. Rows of `repo_tests` are scored there
    (tests_pass): the repository is needed for it.
    """
    if example.origin.kind == "definition":
        return completion_scores(example, text)
    if example.origin.kind == "humaneval":
        return passes(example, text)
    answer, kind = read_answer(text), example.origin.kind
    abstains = is_abstention(answer.final)
    if is_abstention(example.answer.final):
        right = float(abstains)
        quiet = float(not answer.quotes and not is_open(text))
        return {
            "answer_f1": right, "exact_match": right, "quote_correct": quiet, "abstention": right,
        }  # fmt: skip
    final, wanted = answer.final, example.answer.final
    quoted = count_quotes(
        [quote.text for quote in answer.quotes],
        [quote.text for quote in example.answer.quotes],
        example.documents,
    )
    found = {
        "answer_f1": _f1(kind, final, wanted),
        "exact_match": float(not abstains and exact_match(kind, final, wanted)),
        "quote_correct": float(0 < quoted.given == quoted.right and not is_open(text)),
        "abstention": float(not abstains),
    }
    if quoted.wanted:
        found |= {"quote_precision": quoted.precision, "quote_recall": quoted.recall}
    if kind in CODE:
        found |= {"edit_similarity": edit_similarity(final, wanted), "chrf": chrf(final, wanted)}
    return found


def _f1(kind: str, answer: str, reference: str) -> float:
    return (
        set_f1(names_of(answer), names_of(reference))
        if kind in NAMES
        else word_f1(answer, reference)
    )
