"""How alike two texts are; each between 0 and 1."""

from __future__ import annotations

import re
from collections import Counter

_CHRF_ORDER, _CHRF_BETA = 6, 2


def words(text: str) -> list[str]:
    """Identifiers, numbers and words, lower case."""
    return re.findall(r"\w+", text.lower())


def word_f1(answer: str, reference: str) -> float:
    """Word-overlap F1, as in SQuAD (arXiv 1606.05250, section 6.1)."""
    given, wanted = Counter(words(answer)), Counter(words(reference))
    if not given or not wanted:
        # No words on either side (such as `...` or `()`): compare the text itself.
        return float(answer.strip(" `") == reference.strip(" `"))
    return _f1((given & wanted).total(), given.total(), wanted.total())


def set_f1(answer: set[str], reference: set[str]) -> float:
    """F1 of names, in any order."""
    if not answer or not reference:
        return float(answer == reference)
    return _f1(len(answer & reference), len(answer), len(reference))


def _f1(shared: int, given: int, wanted: int) -> float:
    return 2 * shared / (given + wanted) if shared else 0.0


def chrf(answer: str, reference: str) -> float:
    """Character n-gram F-score, n = 1…6, β = 2, white space left out (Popović 2015, eq. 1)."""
    given, wanted = "".join(answer.split()), "".join(reference.split())
    precisions, recalls = [], []
    for n in range(1, _CHRF_ORDER + 1):
        ours = Counter(given[i : i + n] for i in range(len(given) - n + 1))
        theirs = Counter(wanted[i : i + n] for i in range(len(wanted) - n + 1))
        shared = (ours & theirs).total()
        if ours and theirs:
            precisions.append(shared / ours.total())
            recalls.append(shared / theirs.total())
    if not precisions:
        return float(given == wanted)
    precision, recall = (sum(values) / len(values) for values in (precisions, recalls))
    below = _CHRF_BETA**2 * precision + recall
    return (1 + _CHRF_BETA**2) * precision * recall / below if below else 0.0


def edit_similarity(answer: str, reference: str) -> float:
    """1 − Levenshtein distance / length of the longer text; 1 for two empty ones."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_similarity(answer, reference)
