"""How much of the held-out gain over the base an exported file keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from forge_cli.core.config import Settings
from forge_cli.core.events import Reporter
from forge_cli.core.records import Example
from forge_cli.core.run_dir import RunDir

if TYPE_CHECKING:
    from forge_cli.evaluate.statistics.retained import Retained


def measure(
    run: RunDir, file: Path, rows: Sequence[Example], s: Settings, reporter: Reporter
) -> Retained | None:
    """The share of the gain in answer loss that a GGUF or an MLX directory keeps.

    None where nothing was gained. Losses of base and tuned model that the judge has taken
    are not taken again.

    Raises:
        ForgeError: a model cannot be loaded, or llama.cpp refuses the file.
    """
    from forge_cli.evaluate.ask import ask
    from forge_cli.evaluate.asked import Asked, Question
    from forge_cli.evaluate.sides import SideSpec, open_side
    from forge_cli.evaluate.statistics.retained import retained

    asked = Asked([], [Question("given", row) for row in rows], [])
    losses: list[list[float]] = []
    for name in ("base", "tuned", str(file)):
        spec = SideSpec.parse(name)
        side = open_side(spec, run.path / "adapters", url=None, max_tokens=1)
        heard = ask(spec, side, asked, (), run.path / "eval" / "cache", reporter)
        side.close()
        losses.append(heard.losses or [])
    files = [row.origin.path for row in rows]
    base, tuned, exported = losses
    return retained(base, tuned, exported, files, resamples=s.resamples, seed=s.seed)
