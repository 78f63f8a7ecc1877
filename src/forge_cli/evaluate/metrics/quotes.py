"""Are the quotes of an answer real, and the right ones?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forge_cli.core.records import Document


@dataclass(frozen=True)
class Quoted:
    """Quotes of one answer, by where they stand word for word.

    Attributes:
        right: in a document that holds the answer. wrong: only in another that was shown.
        made_up: in none.
        covered, wanted: of the reference's quotes, those within a given one (or the other way
            round); and how many there are.
    """

    right: int
    wrong: int
    made_up: int
    covered: int
    wanted: int

    @property
    def given(self) -> int:
        """How many were given."""
        return self.right + self.wrong + self.made_up

    @property
    def precision(self) -> float:
        """Share of given quotes that are right; 1 where none was given and none is wanted."""
        return self.right / self.given if self.given else float(not self.wanted)

    @property
    def recall(self) -> float:
        """Share of wanted quotes that are covered; 1 where none is wanted."""
        return self.covered / self.wanted if self.wanted else 1.0


def count_quotes(
    given: Sequence[str], wanted: Sequence[str], documents: Sequence[Document]
) -> Quoted:
    """Where each given quote stands, among the documents that were shown.

    A document holds the answer if it is an oracle, or has all wanted quotes in it.
    """
    holding = [d.text for d in documents if d.oracle or _holds(d.text, wanted)]
    right = [quote for quote in given if any(quote in text for text in holding)]
    rest = [quote for quote in given if quote not in right]
    wrong = sum(any(quote in document.text for document in documents) for quote in rest)
    covered = sum(any(quote in own or own in quote for own in right) for quote in wanted)
    return Quoted(len(right), wrong, len(rest) - wrong, covered, len(wanted))


def _holds(text: str, wanted: Sequence[str]) -> bool:
    return bool(wanted) and all(quote in text for quote in wanted)
