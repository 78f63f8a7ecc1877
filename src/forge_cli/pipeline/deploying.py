"""The deploy stage over a run directory, or over one GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_cli.core.answer_form import SYSTEM, read_answer
from forge_cli.core.config import Settings
from forge_cli.core.errors import GateFailed, UsageError
from forge_cli.core.events import Reporter
from forge_cli.core.places import data_dir
from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline.judging import held_out

if TYPE_CHECKING:
    from forge_cli.deploy import DeployResult
    from forge_cli.deploy.directory import Kind
    from forge_cli.deploy.smoke import Question


def registry_file() -> Path:
    """Where it is kept what was deployed from this machine."""
    return data_dir() / "deployments.jsonl"


def deploy(
    run: RunDir,
    s: Settings,
    *,
    name: str,
    dry_run: bool,
    anyway: bool = False,
    reporter: Reporter,
) -> None:
    """Deploy the run's smallest exported GGUF, and ask it some of the run's test rows.

    Raises:
        UsageError: nothing is exported.
        GateFailed: the run was judged worse than its base, and not `anyway`; or the served model
            does not answer as it must. What was served before still is.
    """
    file = exported(run)
    outcome = run.state["metrics"].get("verdict", {}).get("outcome")
    if outcome == "worse" and not anyway:
        raise GateFailed(
            f"{run.path}: was judged worse than its base, so it is not deployed",
            f"see {run.path / 'eval' / 'report.html'}; --anyway deploys it nevertheless",
        )
    if outcome not in ("better", "worse", None):
        reporter.note(f"the run's verdict is {outcome!r}: nothing shows that it is better")
    result = deploy_file(
        file,
        s,
        name=name,
        dry_run=dry_run,
        reporter=reporter,
        smoke=smoke_questions(run, s.smoke_questions, s.seed),
        source=str(run.path.resolve()),
    )
    passed = sum(answer.passed for answer in result.answers)
    run.record(
        deploy={
            "name": name,
            "file": str(file),
            "dry_run": dry_run,
            "version": result.version,
            "previous": result.previous,
            "url": result.url,
            "smoke": {"asked": len(result.answers), "passed": passed},
        }
    )


def deploy_file(
    file: Path,
    s: Settings,
    *,
    name: str,
    dry_run: bool,
    reporter: Reporter,
    smoke: list[Question] | None = None,
    source: str = "",
) -> DeployResult:
    """The deploy stage over one GGUF file."""
    from forge_cli import deploy as stage

    result = stage.run(
        file,
        name=name,
        host=s.host,
        out_dir=file.parent,
        system=SYSTEM,
        # Greedy, so that the answer to a question is always the same; the seed is for those who
        # ask for another temperature.
        parameters={"temperature": 0, "seed": s.seed}
        | ({"num_ctx": s.num_ctx} if s.num_ctx else {}),
        smoke=smoke or [],
        registry=registry_file(),
        source=source,
        keep=s.keep_versions,
        dry_run=dry_run,
        reporter=reporter,
    )
    for answer in result.answers:
        without = "" if answer.passed else " (answered without the expected quote)"
        asked = answer.question.rpartition("Question: ")[2][-200:]
        reporter.note(f"smoke question{without}: {asked}\n{answer.answer}")
    return result


def write_directory(
    source: RunDir | Path, kind: Kind, s: Settings, *, name: str, folder: Path, reporter: Reporter
) -> Path:
    """For another server than Ollama: see `deploy.directory`."""
    from forge_cli.deploy.directory import write_served

    if isinstance(source, RunDir):
        model = _mlx_directory(source) if kind == "mlx" else exported(source)
    else:
        model = source
    return write_served(
        kind, model, name=name, folder=folder, system=SYSTEM, context=s.num_ctx, reporter=reporter
    )


def exported(run: RunDir) -> Path:
    """The run's smallest GGUF.

    Raises:
        UsageError: there is none.
    """
    found = [Path(file) for file in run.state["files"] if file.endswith(".gguf")]
    found = [file for file in found if file.exists()]
    if not found:
        raise UsageError(f"{run.path}: nothing is exported", f"run: forge export {run.path}")
    return min(found, key=lambda f: f.stat().st_size)


def _mlx_directory(run: RunDir) -> Path:
    found = run.path / "export" / f"{run.path.name}-mlx"
    if not found.is_dir():
        raise UsageError(
            f"{run.path}: no model for MLX is exported", f"run: forge export {run.path} --to mlx"
        )
    return found


def smoke_questions(run: RunDir, most: int, seed: int) -> list[Question]:
    """Test rows to ask the served model.

    Of those that the judge saw the trained model answer with all its quotes right, the ones that it
    was surest of: the served model, whose weights are rounded, must quote the same there. Where
    there are none, one row that must be answered somehow.
    """
    from forge_cli.deploy.smoke import Question
    from forge_cli.evaluate import spread

    rows = [row for row in held_out(run) if any(d.oracle for d in row.documents)]
    right = _answered_right(run)
    known = [row for row in rows if row.id in right]
    if not known:
        return [Question(rows[0].messages[:-1])] if rows and most else []
    known.sort(key=lambda row: right[row.id][1], reverse=True)
    return [
        Question(row.messages[:-1], right[row.id][0])
        for row in spread(known[: 2 * most], most, seed)
    ]


def _answered_right(run: RunDir) -> dict[str, tuple[tuple[str, ...], float]]:
    """Rows that the judge saw answered with right quotes: these quotes, and the confidence."""
    found = {}
    for file in (run.path / "eval" / "raft.jsonl", run.path / "eval" / "update" / "raft.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            row: dict[str, Any] = json.loads(line)
            tuned = row["sides"].get("tuned", {})
            quotes = tuple(quote.text for quote in read_answer(tuned.get("text", "")).quotes)
            # As the row stands in the run's data, which is not so under the other conditions.
            if (
                row["condition"] in ("given", "later")
                and tuned.get("quote_correct") == 1
                and quotes
            ):
                found[row["id"]] = quotes, float(tuned.get("confidence", 0.0))
    return found
