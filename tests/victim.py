"""A process that trains a tiny model and, when told to, kills itself on the way.

    python tests/victim.py MODEL RUN [ops:K | step:K | ""] [STEPS]

ops:K is right before the K-th change of a file in the run directory (open to write, rename,
delete …), step:K in the middle of the K-th step. It dies of SIGKILL: nothing is cleaned up.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from forge_cli import train
from forge_cli.train.step import Stepper
from tiny_train import examples

SETTINGS = {
    "rank": 4, "steps": 9, "learning_rate": 5e-3, "valid_every": 4, "layers": 0,
    "targets": ("q_proj", "v_proj", "down_proj"), "accumulate": 2, "save_every": 1,
    "neftune": 5.0, "sample_every": 0,
}  # fmt: skip
_CHANGES = {"open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "os.truncate"}


def kill_at_operation(out: Path, count: int) -> None:
    """Die right before the `count`-th change of a file in `out`."""
    seen = 0

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in _CHANGES or not str(args[0]).startswith(str(out)):
            return
        if event == "open" and not int(args[2]) & (os.O_WRONLY | os.O_RDWR):  # type: ignore[call-overload]
            return
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def kill_at_step(count: int) -> None:
    """Die in the `count`-th step, once its gradients are there and before they are applied."""
    real = Stepper._update
    seen = 0

    def update(self: Stepper, *args: object) -> float:
        nonlocal seen
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *args)  # type: ignore[arg-type]

    Stepper._update = update  # type: ignore[method-assign,assignment]


def main() -> None:
    """Train to the end, or until the moment that the third argument names."""
    model, out = sys.argv[1], Path(sys.argv[2])
    kind, _, count = sys.argv[3].partition(":") if len(sys.argv) > 3 else ("", "", "")
    if kind == "ops":
        kill_at_operation(out, int(count))
    elif kind == "step":
        kill_at_step(int(count))
    steps = int(sys.argv[4]) if len(sys.argv) > 4 else SETTINGS["steps"]
    settings = SETTINGS | {"steps": steps}
    train.run(examples(), out=out, model=model, **settings)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
