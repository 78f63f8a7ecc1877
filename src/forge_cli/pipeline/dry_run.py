"""`forge train --dry-run`: what would be done, and what it would take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from forge_cli.core.config import Resolved
from forge_cli.core.events import Reporter
from forge_cli.core.records import Example, Preference
from forge_cli.pipeline import check_splits, read_rows, train_settings
from forge_cli.pipeline.continued import with_adapters
from forge_cli.pipeline.data import make_examples, mine_chunks, validated


def plan(
    source: str, resolved: Resolved, reporter: Reporter, *, need_end: bool = True
) -> dict[str, int]:
    """Say what training would do: rows, contexts, steps and memory. Nothing is written.

    Returns:
        Bytes at the fullest moment of a step, by what they are for; empty where the memory of
        this kind of model is not foreseen.

    Raises:
        UsageError: it would not fit the memory.
    """
    resolved = with_adapters(resolved)
    s = resolved.settings
    from forge_cli.train.micro_batches import suited_epochs
    from forge_cli.train.preview import preview

    examples: Sequence[Example | Preference]
    if source != "-" and Path(source).is_dir():
        chunks = mine_chunks(Path(source), s, reporter)
        # A plan costs nothing: the teacher is not asked.
        untaught = s.model_copy(update={"teacher": "none"})
        examples = validated(make_examples(chunks, untaught, reporter), s, reporter)
        if s.teacher != "none":
            reporter.note(f"{s.teacher} was not asked: its questions would come on top")
    else:
        examples = read_rows(source, s, need_end)
        check_splits(examples, source)
    rows = [e for e in examples if e.split == "train" or isinstance(e, Preference)]
    contexts = len({e.context_id if isinstance(e, Example) else id(e) for e in rows})
    once = bool(s.adapters) or s.loss == "dpo"
    epochs = s.epochs or suited_epochs(contexts / s.accumulate, once)
    steps = s.steps or max(1, math.ceil(round(contexts * epochs) / s.accumulate))
    for key, origin in resolved.origins.items():
        if origin != "default":
            reporter.note(f"{key}: {getattr(s, key)} ({origin})")
    reporter.note(
        f"would train {s.model} ({s.bits}-bit, {s.init}, rank {s.rank}) on {len(rows)} rows in "
        f"{contexts} contexts for about {steps} steps, {s.accumulate} of them a step; nothing "
        "was written"
    )
    settings = train_settings(s)
    fit = preview(examples, settings, cache=settings["cache"], reporter=reporter)
    return fit.plan.parts if fit else {}
