"""Conditions in words."""

from __future__ import annotations

CONDITION_NAMES = {
    "given": "documents as given",
    "reworded": "a wording never trained on",
    "unseen": "kinds never trained on",
    "later": "code committed after training",
    "latency": "by the clock",
    "completion": "definitions to complete",
    "perplexity": "text of held-out files",
    "humaneval": "HumanEval",
    "repo_tests": "bodies that the repository's tests run",
    "oracle": "the right documents alone",
    "distractors": "wrong documents alone (to abstain)",
    "closed_book": "no documents",
    "retrieved": "documents found by BM25",
}
