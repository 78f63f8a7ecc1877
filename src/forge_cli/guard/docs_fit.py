"""Whether changed documentation still speaks of the code that it stands on.

Wrong documentation makes rows whose quotes are all verbatim: no check of a single row sees it. But
a docstring shares names and words with its own code, more than with other code. If of many changed
ones far fewer do than of those that were trained on before, something is wrong with them.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forge_cli.core.records import Chunk
from forge_cli.core.words import words_of

MIN_DOCS = 6  # changed docstrings; of fewer nothing can be said
_OTHERS = 40  # definitions that a docstring is held against
_MOST = 0.8  # of them share less with it than its own, where it fits
_P = 5e-3  # how rarely sound documentation may look so by chance


@dataclass(frozen=True)
class Fit:
    """How many docstrings fit their own code better than other code.

    Attributes:
        p: chance of so few or fewer, if they were like those before (one-sided binomial).
    """

    fitting: int
    docs: int
    before: float
    p: float

    @property
    def suspicious(self) -> bool:
        """Whether that is too few to be chance."""
        return self.docs >= MIN_DOCS and self.p < _P


def docs_fit(changed: Sequence[Chunk], before: Sequence[Chunk], seed: int = 0) -> Fit:
    """Hold the docstrings of `changed` against their code, and those of `before` against theirs.

    Args:
        changed: definitions that are new, or whose text is.
        before: what the deployed model was trained on.
    """
    known = [d for d in map(_read, before) if d]
    new = [d for d in map(_read, changed) if d]
    codes = [code for _, code in known] or [code for _, code in new]
    draw = random.Random(seed)
    weigh = _rarity(codes)
    hits = sum(_fits(doc, code, codes, weigh, draw) for doc, code in new)
    rate = sum(_fits(doc, code, codes, weigh, draw) for doc, code in known) + 1
    share = rate / (len(known) + 2)  # Laplace's rule: never 0 or 1
    return Fit(hits, len(new), share, _at_most(hits, len(new), share))


def _rarity(codes: Sequence[set[str]]) -> Callable[[str], float]:
    """The weight of a word: what stands in all code tells nothing (inverse document frequency)."""
    counts = Counter(word for code in codes for word in code)
    return lambda word: math.log((len(codes) + 1) / (counts[word] + 1))


def _read(chunk: Chunk) -> tuple[set[str], set[str]] | None:
    """Words of a docstring, and of its code without it; None without enough of both."""
    if not chunk.docstring or chunk.symbol is None or chunk.kind == "section":
        return None
    text = chunk.text
    for line in chunk.docstring.splitlines():
        text = text.replace(line.strip(), " ") if line.strip() else text
    doc = set(words_of(chunk.docstring))
    code = set(words_of(f"{chunk.symbol.rpartition('.')[2]} {text}"))
    return (doc, code) if len(doc) >= 3 and len(code) >= 5 else None


def _fits(
    doc: set[str],
    code: set[str],
    codes: Sequence[set[str]],
    weigh: Callable[[str], float],
    draw: random.Random,
) -> bool:
    """Whether the docstring shares more with its own code than with most other code."""

    def shared(one: set[str]) -> float:
        # A long text shares words by its length alone.
        return sum(map(weigh, doc & one)) / math.sqrt(len(one))

    own = shared(code)
    others = [codes[draw.randrange(len(codes))] for _ in range(_OTHERS)]
    return sum(shared(other) < own for other in others) >= _MOST * _OTHERS


def _at_most(hits: int, tries: int, share: float) -> float:
    """P(X ≤ hits) of a binomial."""
    return sum(math.comb(tries, k) * share**k * (1 - share) ** (tries - k) for k in range(hits + 1))
