"""Print docs/data-sample.md: thirty random rows of each kind, with a reader's verdicts.

forge mine werkzeug/ | forge raft | forge validate -o examples.jsonl
python docs/make_data_sample.py examples.jsonl > docs/data-sample.md
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections import defaultdict
from typing import Any

EACH, SEED, WIDTH = 30, 2026, 160
# Of the rows that were read, by `digest`: of any others the page says that nobody read them.
READ = "0f411ae2adbb39704c4c8d1699047d9b9a947f6a4bb291faf5330440be5d13f6"
# What the reader remarked, by kind and number; all other rows were found right and sensible.
REMARKS = {
    ("absent", 23): "right, but awkward: the parameter is called like the method",
    ("calls", 21): "doubtful: `sys.stdout` is an `HTMLStringO` only while the console runs",
    ("usage", 21): "right, but part of a statement: the call stands in a decorator",
}


def cell(text: str) -> str:
    """A text on one line of a table, cut at WIDTH characters."""
    text = " ⏎ ".join(text.strip().splitlines())
    text = text if len(text) <= WIDTH else text[:WIDTH] + " …"
    return text.replace("|", "\\|").replace("<", "&lt;")


def digest(drawn: dict[str, list[dict[str, Any]]]) -> str:
    """What names these rows: their questions, answers and documents, in order."""
    shown = [[r["question"], r["answer"], r["documents"]] for rows in drawn.values() for r in rows]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def main() -> None:
    """Read validated examples; print the page."""
    kinds = defaultdict(list)
    with open(sys.argv[1], encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            kinds[row["origin"]["kind"]].append(row)
    rng = random.Random(SEED)
    drawn = {kind: rng.sample(kinds[kind], min(EACH, len(kinds[kind]))) for kind in sorted(kinds)}
    total = sum(map(len, drawn.values()))
    print("# A sample of training data, read\n")
    print(
        f"{total} rows that Forge made of [werkzeug](https://github.com/pallets/werkzeug) at "
        f"1b00618e without a teacher: {EACH} of each kind, or all there are, drawn at random. "
        "Each was read with its quotes, and its documents opened where there was a doubt. A row "
        "is *wrong* when its answer is not what the code says, *silly* when nobody would ask it "
        "or learn from it.\n"
    )
    was_read = digest(drawn) == READ
    verdicts = f"Found wrong: 0. Remarked on: {len(REMARKS)}."
    if not was_read:
        verdicts = "These rows are not the ones that were read: there are no verdicts."
        print(f"the rows' digest is {digest(drawn)}", file=sys.stderr)
    print(
        f"{verdicts} Made by `docs/make_data_sample.py`; *refusal* marks rows whose documents do "
        "not hold the answer.\n"
    )
    for kind, rows in drawn.items():
        print(f"## {kind} ({len(rows)} of {len(kinds[kind])})\n")
        print("| | question | answer | verdict |\n|-|-|-|-|")
        for number, row in enumerate(rows, 1):
            refusal = not row["answer"]["quotes"]
            final = "*refusal*" if refusal else cell(row["answer"]["final"])
            verdict = REMARKS.get((kind, number), "right") if was_read else "not read"
            print(f"| {number} | {cell(row['question'])} | {final} | {verdict} |")
        print()


if __name__ == "__main__":
    main()
