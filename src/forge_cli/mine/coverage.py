"""What became of the files' bytes; counted from the results, not assumed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from forge_cli.mine.worker import Found

# Rejects that are text, and so count as text that is in no chunk.
_TEXT_CHECKS = {"language", "minified", "parse", "coverage", "hang", "crash"}


@dataclass
class Coverage:
    """Counts of files, chunks and bytes."""

    files: int = 0
    chunks: int = 0
    text_bytes: int = 0
    chunk_bytes: int = 0
    rejected: Counter[str] = field(default_factory=Counter)  # by check

    def add(self, found: Found) -> None:
        """Count a file; the bytes of one that was left out are missed when they are text."""
        if verdict := found.verdict:
            self.rejected[verdict.check] += 1
            if verdict.check in _TEXT_CHECKS:
                self.text_bytes += verdict.end_byte or 0
        elif not found.skipped:
            self.files += 1
            self.text_bytes += found.size
            self.chunks += found.chunks
            self.chunk_bytes += found.chunk_bytes

    @property
    def share(self) -> float:
        """Share of the text's bytes that are in chunks."""
        return self.chunk_bytes / self.text_bytes if self.text_bytes else 1.0

    def __str__(self) -> str:
        named = ", ".join(f"{count} {check}" for check, count in sorted(self.rejected.items()))
        return (
            f"mined {self.files:,} files into {self.chunks:,} chunks: {self.share:.2%} of "
            f"{self.text_bytes / 1e6:.2f} MB; {self.rejected.total()} files rejected"
            + (f" ({named})" if named else "")
        )
