"""The process in which one side is timed: `python -m forge_cli.evaluate.latency_process`.

Standard input: an order as JSON. Standard output: {"first", "each", "tokens"} for each chat, then
{"peak_bytes"}; or {"error", "hint"}.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Message
from forge_cli.evaluate.sides import Side, SideSpec, open_side


def main() -> None:
    """Read the order, time each chat, say the peak."""
    order = json.load(sys.stdin)
    # What a library prints is no answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        side = open_side(
            SideSpec.parse(order["side"]), Path(order["adapters"]), url=order["url"],
            max_tokens=order["max_tokens"],
        )  # fmt: skip
        chats = [[Message(role=r, content=c) for r, c in chat] for chat in order["chats"]]
        clock(side, chats[0])  # a first answer loads the model, and compiles what a GPU runs
        for chat in chats:
            print(json.dumps(clock(side, chat)), file=answers)
    except ForgeError as error:
        print(json.dumps({"error": error.message, "hint": error.hint}), file=answers)
        return
    remote = order["side"].startswith(("ollama:", "openai:"))
    print(json.dumps({"peak_bytes": None if remote else _peak()}), file=answers)


def clock(side: Side, chat: list[Message]) -> dict[str, Any]:
    """Seconds to the first token of an answer and, in the mean, for each after it."""
    begun = time.perf_counter()
    ends = [time.perf_counter() - begun for _ in side.stream(chat)]
    # A server may say nothing at all, and that too takes a while.
    first = ends[0] if ends else time.perf_counter() - begun
    each = (ends[-1] - first) / (len(ends) - 1) if len(ends) > 1 else None
    return {"first": first, "each": each, "tokens": len(ends)}


def _peak() -> int:
    """Bytes: of the process as the system counts, or of MLX's arrays where these are more.

    The system may not count what a GPU holds.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if "mlx.core" in sys.modules:
        from forge_cli.models.backend import mx

        peak = max(peak, mx.get_peak_memory())
    return peak


if __name__ == "__main__":
    main()
