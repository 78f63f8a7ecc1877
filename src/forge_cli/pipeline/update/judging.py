"""Whether an update is better on new code, and no worse on old: deployed run against new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from forge_cli.core.accelerator import accelerator
from forge_cli.core.config import Settings
from forge_cli.core.errors import UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Example
from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline.update.corrections import unshown
from forge_cli.pipeline.update.lineage import read_plan

# Named before anything is measured, and so corrected among themselves.
DECISIVE = ("answer_loss", "answer_f1")


def judge_update(
    run: RunDir,
    base: RunDir,
    settings: Settings,
    reporter: Reporter = SILENT,
    *,
    decisive: Sequence[str] = DECISIVE,
) -> dict[str, dict[str, Any]]:
    """Compare an updated run with the one that is deployed, row by row; once.

    `new` are the held-out rows about code that neither has been trained on, `old` the test rows
    about code that did not change; neither are what a learned correction showed. Kept in
    run.json under metrics.update, for `evaluate.gates.failing`; every answer stands in
    eval/update/.

    Args:
        base: the deployed run, the reference; `settings`: eval_rows, answer_rows, resamples, seed.
        decisive: metrics that gates name.

    Returns:
        "new" and "old" → metric → comparison, `base` being the deployed run and `tuned` the
        update. Of what has no rows there are no metrics.

    Raises:
        UsageError: `run` is not a trained update. ForgeError: a model fails.
    """
    from forge_cli import evaluate as stage

    plan = read_plan(run)
    if not plan or not run.is_done("train"):
        raise UsageError(f"{run.path}: not a trained update", "make one with update()")
    deployed = str(base.path.resolve())
    asked = {
        "base": deployed, "eval_rows": settings.eval_rows,
        "answer_rows": settings.answer_rows, "resamples": settings.resamples,
        "seed": settings.seed, "decisive": list(decisive),
    }  # fmt: skip
    with run.locked(), accelerator(reporter):
        if run.state["stages"].get("judge_update") == asked:
            reporter.note(f"{run.path}: already judged against {base.path}")
            found: dict[str, dict[str, Any]] = run.state["metrics"]["update"]
            return found
        examples = read_records(run.path / "data" / "examples.jsonl", Example)
        rows = unshown(run, [row for row in examples if row.split == "test"])
        about_new = set(plan["new"])
        new = [row for row in rows if row.id in about_new]
        old = [row for row in rows if row.id not in about_new]
        found = {"new": {}, "old": {}}
        if new or old:
            # Without training rows no kind of question counts as one that was never trained on.
            conditions = {"given": "old", "later": "new"} if old else {"given": "new"}
            pairs = stage.run(
                old or new,
                adapters=run.path / "adapters",
                out=run.path / "eval" / "update",
                sides=[deployed, "tuned"],
                conditions=list(conditions),
                later=new if old else (),
                rows=settings.eval_rows,
                answer_rows=settings.answer_rows,
                condition_rows=settings.answer_rows,
                resamples=settings.resamples,
                seed=settings.seed,
                decisive={f"{one}.{metric}" for one in conditions for metric in decisive},
                reporter=reporter,
            )
            for pair in pairs:
                found[conditions[pair.condition]][pair.metric] = asdict(pair.found)
        run.record(update=found)
        run.finish("judge_update", **asked)
    return found
