"""One of several processes that train a tiny model together; see tests/mlx/test_distributed.py.

    MLX_RANK=… MLX_HOSTFILE=… python tests/rank.py RUN [key=value …]

Keys: steps=N; die=RANK:STEP (SIGKILL in that step), hang=RANK:STEP (SIGSTOP; step 0:
before the ring stands), stop=RANK:STEP
(SIGTERM), fault=RANK:STEP (a ForgeError), limit=RANK:TOKENS (of a pass, on that rank), part=N
(Ctrl-C after so many batches of the first step), missed=N (beats to wait for), together=N
(seconds to wait for the others).
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT
from forge_cli.core.ranks import find_place
from forge_cli.models.adapters import adapter_arrays, save_arrays
from forge_cli.models.backend import mx
from forge_cli.train.callbacks import Callback
from forge_cli.train.callbacks.metrics import Metrics
from forge_cli.train.distributed import ALONE, Lost, World, join, link
from forge_cli.train.distributed.sharing import share_run
from forge_cli.train.loop import fit
from forge_cli.train.neftune import Neftune
from forge_cli.train.step import Stepper
from tiny_loop import batch, loop_of, tuned_model

_SIGNALS = {"die": signal.SIGKILL, "hang": signal.SIGSTOP, "stop": signal.SIGTERM}


def hang_before_the_ring() -> None:
    """Stop once the ranks have met."""
    meet = link.meet

    def met(*args: Any, **how: Any) -> Any:
        found = meet(*args, **how)
        os.kill(os.getpid(), signal.SIGSTOP)
        return found

    link.meet = met


def without_tokenizers() -> None:
    """Import mlx_lm.models alone: the rest of mlx_lm takes longer than all that is done here."""
    package = types.ModuleType("mlx_lm")
    found = importlib.util.find_spec("mlx_lm")
    assert found and found.submodule_search_locations
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["mlx_lm"] = package


def plan(steps: int) -> list[list[Any]]:
    """Three batches a step of different sizes, and one that is alone at the end."""
    found = [
        [batch(1 + (s + b) % 3, context=3 * s + b, prefix=30 + 9 * b) for b in range(3)]
        for s in range(steps - 1)
    ]
    return [*found, [batch(2, context=50)]]


def at_step(kind: str, step: int) -> None:
    """Let that happen in this step, once the gradients of this rank are there."""
    add = Stepper._over_all_ranks
    seen = 0

    def adding(self: Stepper) -> Any:
        nonlocal seen
        seen += 1
        if seen == step and kind == "fault":
            raise ForgeError("the loss of row 7 is not a number", "look at it")
        if seen == step:
            os.kill(os.getpid(), _SIGNALS[kind])
        return add(self)

    Stepper._over_all_ranks = adding  # type: ignore[method-assign]


def within_step(batches: int) -> None:
    """Interrupt the first step after so many of its batches."""
    add = Stepper._add

    def adding(self: Stepper, *args: Any) -> None:
        if self.partial.done == batches:
            raise KeyboardInterrupt
        add(self, *args)

    Stepper._add = adding  # type: ignore[method-assign]


def interrupt(*_: object) -> None:
    """As `forge` takes SIGTERM."""
    raise KeyboardInterrupt


def train(out: Path, world: World, steps: int, limit: int) -> None:
    """Train to the end; rank 0 leaves the adapters in `out`."""
    share_run(world, out, SILENT)
    model = tuned_model()
    callbacks: list[Callback] = [] if world.rank else [Metrics()]
    loop = loop_of(
        out, plan(steps), model, callbacks=callbacks, world=world, keep_last=9,
        around=Neftune(model, 5.0, 3), max_tokens=limit, valid_every=3,
        valid=[batch(2, context=90), batch(1, context=91, prefix=60)],
    )  # fmt: skip
    progress = fit(loop)
    if world.rank == 0:
        save_arrays(out / "adapters.safetensors", adapter_arrays(model))
    print(f"rank {world.rank} of {world.size}: {progress.step} steps, {progress.max_tokens} limit")


def main(out: str, *options: str) -> int:
    """Train; the exit code."""
    without_tokenizers()
    signal.signal(signal.SIGTERM, interrupt)
    mx.random.seed(0)
    place = find_place()
    rank, steps, limit = place.rank if place else 0, 6, 0
    for option in options:
        name, _, value = option.partition("=")
        who, _, at = value.partition(":")
        if name == "steps":
            steps = int(value)
        elif name == "missed":
            link.MISSED = int(value)
        elif name == "together":
            link.MEETING = float(value)
        elif name == "limit":
            limit = int(at) if rank == int(who) else 0
        elif name == "part":
            within_step(int(value))
        elif rank == int(who) and at == "0":
            hang_before_the_ring()
        elif rank == int(who):
            at_step(name, int(at))
    try:
        world = join(place) if place else ALONE
        with world.session(), tempfile.TemporaryDirectory() as scratch:
            train(Path(scratch if rank else out), world, steps, limit)
    except KeyboardInterrupt:
        return 130
    except ForgeError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 3 if isinstance(error, Lost) else error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
