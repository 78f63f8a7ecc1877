"""What an update costs and keeps, against the deployed model and a full retraining.

python benchmarks/guard_incremental.py [--repo REPOSITORY] [OLD NEW]

A model is trained on a repository as it was at one commit, and the repository moves on to
another. An update trains on from the deployed adapters over what changed and a replay of old rows;
a full retraining begins from the base model and goes over everything, as `forge train` would, with
the same splits. All are asked the same held-out rows, given as in training: about new code that
none of them was trained on, and about code that did not change (forgetting). Losses are means over
the tokens of the right answers, in nats. Seconds are of the processor and by the clock, of one run on
a machine that other work shares.

REPOSITORY is a path or an address that git clones. SmolLM2-135M (in the package), 2 cores, about
25 minutes.
"""

from __future__ import annotations

from typing import Any

from forge_cli.core.events import Silent

REPOSITORY, OLD, NEW = "https://github.com/pypa/packaging", "26.1", "26.2"
SETTINGS: dict[str, Any] = {
    "rank": 16, "layers": 16, "max_tokens": 1536, "valid_every": 20, "valid_rows": 16,
    "questions": 4, "epochs": 1.0, "seed": 0,
}  # fmt: skip
ROWS, ANSWERS = 80, 32


class Aloud(Silent):
    """What goes on, to stderr."""

    def note(self, message: str) -> None:
        print(message, file=__import__("sys").stderr, flush=True)

    warn = note
