"""Rows that teach the base model nothing, or nothing that it could learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forge_cli.core.events import Reporter
from forge_cli.core.records import Example


def out_of_bounds(
    examples: Sequence[Example], model: str, least: float, most: float, reporter: Reporter
) -> Iterator[str | None]:
    """For each row: why its loss under the base model says to leave it out.

    Args:
        least, most: nats per answer token. Below `least` the base gives the answer already;
            above `most` it is more likely noise than something to learn.

    Raises:
        ForgeError: the model cannot be loaded.
    """
    from forge_cli.models.answer_losses import answer_losses
    from forge_cli.models.load import load_dense

    loaded = load_dense(model, reporter=reporter)
    for loss in answer_losses(loaded, [e.messages for e in examples], "base", reporter):
        if loss < least:
            yield f"base loss {loss:.2f}, below {least:g}: the base knows the answer"
        elif loss > most:
            yield f"base loss {loss:.2f}, above {most:g}: more likely noise than knowledge"
        else:
            yield None
