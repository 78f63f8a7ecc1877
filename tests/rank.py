"""One of several processes that train a tiny model together; see tests/mlx/test_distributed.py.

    MLX_RANK=… MLX_HOSTFILE=… python tests/rank.py MODEL RUN [key=value …]

A value is a setting of `train.run` in JSON, or one of: die=RANK:STEP (SIGKILL in the middle of
that step), hang=RANK:STEP (SIGSTOP), stop=RANK:STEP (SIGTERM), missed=N (beats to wait).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from forge_cli import train
from forge_cli.core.errors import ForgeError
from forge_cli.core.ranks import find_place
from forge_cli.train.distributed import ALONE, Lost, join, link
from forge_cli.train.step import Stepper
from tiny_train import example

SETTINGS = {
    "rank": 4, "steps": 6, "learning_rate": 5e-3, "valid_every": 3, "layers": 0,
    "targets": ("q_proj", "v_proj", "down_proj"), "accumulate": 3, "save_every": 1,
    "neftune": 5.0,
}  # fmt: skip
_SIGNALS = {"die": signal.SIGKILL, "hang": signal.SIGSTOP, "stop": signal.SIGTERM}


def rows() -> list[Any]:
    """Seven contexts of different sizes to train on, two to validate."""
    found = [example(c, q, size=6 + 3 * c) for c in range(7) for q in range(1 + c % 3)]
    return found + [example(20 + c, q, "valid") for c in range(2) for q in range(2)]


def at_step(kind: str, rank: int, step: int, own: int) -> None:
    """Send this process a signal in that step, once its own gradients are there."""
    add = Stepper._over_all_ranks
    seen = 0

    def adding(self: Stepper) -> Any:
        nonlocal seen
        seen += 1
        if seen == step and own == rank:
            os.kill(os.getpid(), _SIGNALS[kind])
        return add(self)

    Stepper._over_all_ranks = adding  # type: ignore[method-assign]


def interrupt(*_: object) -> None:
    """As `forge` takes SIGTERM."""
    raise KeyboardInterrupt


def main(model: str, out: str, *options: str) -> int:
    """Train; the exit code."""
    signal.signal(signal.SIGTERM, interrupt)
    place = find_place()
    settings: dict[str, Any] = dict(SETTINGS)
    for option in options:
        name, _, value = option.partition("=")
        if name in _SIGNALS:
            rank, step = map(int, value.split(":"))
            at_step(name, rank, step, place.rank if place else 0)
        elif name == "missed":
            link.MISSED = int(value)
        else:
            settings[name] = json.loads(value)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            own = Path(scratch) if place and place.rank else Path(out)
            world = join(place) if place else ALONE
            with world.session():
                result = train.run(rows(), out=own, model=model, world=world, **settings)
    except KeyboardInterrupt:
        return 130
    except ForgeError as error:
        print(
            f"rank {place.rank if place else 0} error: {error.message} ({error.hint})",
            file=sys.stderr,
        )
        return 3 if isinstance(error, Lost) else error.exit_code
    print(json.dumps({"steps": result.steps, "rows": result.rows, "sent": world.sent}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
