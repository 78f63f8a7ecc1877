"""The deployed model's loss and score on rows; nothing is asked of it twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from forge_cli.core.accelerator import accelerator
from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.records import Example
from forge_cli.core.run_dir import RunDir

# The same for all rows: a limit by their answers would differ from look to look, and an answer
# that was given under another limit is not taken for the same.
_MAX_ANSWER = 160  # tokens


@dataclass(frozen=True)
class Known:
    """How well a model knows some rows.

    Attributes:
        loss: mean nats a token of the right answers. score: mean answer F1 of its own.
    """

    loss: float
    score: float


def ask_deployed(
    run: RunDir, rows: Sequence[Sequence[Example]], answers: int, cache: Path, reporter: Reporter
) -> list[Known]:
    """What the run's adapters make of each set of rows; the model is loaded if one is not known.

    Args:
        answers: how many of each set are answered, the first ones.
        cache: a folder that keeps losses and answers, by the adapters' own bytes.

    Raises:
        ForgeError: the adapters are gone, the model cannot be loaded, or fails on a row.
    """
    from forge_cli.evaluate.ask import ask
    from forge_cli.evaluate.asked import Asked, Question
    from forge_cli.evaluate.scoring import score_answers
    from forge_cli.evaluate.sides import SideSpec, open_side

    adapters = run.path / "adapters"
    if not (adapters / "config.json").exists():
        raise ForgeError(
            f"{adapters}: the deployed model's adapters are gone, so that it cannot be asked",
            "put them back, or leave loss, score and drift out of retrain_when in guard.yaml",
        )
    sets = [[Question("given", row) for row in found] for found in rows]
    asked = Asked(
        questions=[question for found in sets for question in found[:answers]],
        rows=[question for found in sets for question in found],
        timed=[],
    )
    spec = SideSpec.parse("tuned")
    side = open_side(spec, adapters, url=None, max_tokens=_MAX_ANSWER)
    with accelerator(reporter):
        try:
            heard = ask(spec, side, asked, (), cache, reporter)
        finally:
            side.close()
    scores = [one["answer_f1"] for one in score_answers(asked.questions, heard, None)]
    losses = heard.losses or []
    known = []
    for found in sets:
        own, losses = losses[: len(found)], losses[len(found) :]
        answered = min(answers, len(found))
        given, scores = scores[:answered], scores[answered:]
        known.append(Known(fmean(own), fmean(given)))
    return known
