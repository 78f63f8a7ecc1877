"""How fast rows are made and validated, and near-duplicates found, on this machine.

python benchmarks/validation.py [TREE]      (none: the standard library of Python)
"""

from __future__ import annotations

import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from forge_cli import mine, raft, validate
from forge_cli.core.answer_form import write_answer
from forge_cli.validate.near import near_pairs

T = TypeVar("T")
ROWS = 100_000


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result and the wall time in seconds."""
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


def main() -> None:
    """Print one line for each step."""
    tree = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_paths()["stdlib"])
    chunks, took = timed(lambda: list(mine.run(tree, langs=["python"])))
    print(f"mine: {len(chunks)} chunks in {took:.1f} s")
    rows, took = timed(lambda: list(raft.run(chunks)))
    print(f"raft: {len(rows)} rows in {took:.1f} s: {60 * len(rows) / took:,.0f} a minute")
    reports: list[validate.Report] = []
    sound, took = timed(lambda: validate.run(rows, model="smollm2-135m", on_report=reports.append))
    print(
        f"validate: {len(sound)} sound in {took:.1f} s with tokenisation: "
        f"{60 * len(rows) / took:,.0f} rows a minute (wanted: 20,000); "
        f"{reports[0].leaked_documents} test documents like one in training"
    )
    quotes = [(q, row) for row in rows for q in row.answer.quotes]
    texts = {(row.id, d.id): d.text for row in rows for d in row.documents}
    found = sum(q.text in texts[row.id, q.document] for q, row in quotes)
    print(f"quotes that stand in their document: {found} of {len(quotes)}")
    # Every row with a word of its own: none is an exact copy of another.
    many = [
        f"{row.question}\n{write_answer(row.answer)}\nrow {number}"
        for number, row in enumerate((rows * (ROWS // len(rows) + 1))[:ROWS])
    ]
    pairs, took = timed(lambda: sum(1 for _ in near_pairs(many, 0.9)))
    print(f"near-duplicates of {len(many)} rows: {pairs} pairs in {took:.1f} s (wanted: < 60)")


if __name__ == "__main__":
    main()
