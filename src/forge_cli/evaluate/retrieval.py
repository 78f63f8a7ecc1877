"""Documents for a question as a user would find them: BM25 over the mined chunks."""

from __future__ import annotations

from collections.abc import Sequence

from forge_cli.core.records import Chunk, Document
from forge_cli.core.words import words_of

# Least text that can answer something.
_MIN_CHARS = 16


class Retriever:
    """BM25 (Robertson & Zaragoza 2009, as `bm25s` has it) over path, symbol and text."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        import bm25s

        self._chunks = [chunk for chunk in chunks if len(chunk.text.strip()) >= _MIN_CHARS]
        self._index = bm25s.BM25()
        words = [words_of(f"{c.path} {c.symbol or ''} {c.text}") for c in self._chunks]
        if words:  # bm25s takes no empty index
            self._index.index(words, show_progress=False)

    def find(self, question: str, count: int, oracles: Sequence[str] = ()) -> list[Document]:
        """The best `count` chunks, best first.

        Args:
            oracles: ids of the chunks that hold the answer; those found are marked.
        """
        if not self._chunks:
            return []
        scores = self._index.get_scores(sorted(set(words_of(question))))
        order = sorted(range(len(self._chunks)), key=lambda i: (-float(scores[i]), i))
        return [
            Document(
                id=chunk.id,
                path=chunk.path,
                symbol=chunk.symbol,
                text=chunk.text,
                oracle=chunk.id in oracles,
            )
            for chunk in (self._chunks[index] for index in order[:count])
        ]
