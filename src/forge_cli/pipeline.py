"""The stages chained over a run directory. The only place that knows their order."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_cli.core.answer_form import SYSTEM
from forge_cli.core.config import Resolved, Settings, cache_dir
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import read_records, write_records
from forge_cli.core.records import Chunk, Example, Verdict
from forge_cli.core.run_dir import RunDir

if TYPE_CHECKING:
    from forge_cli.mine import Mined
    from forge_cli.validate import Report

RUNS = Path(".forge") / "runs"


def train(
    source: str,
    resolved: Resolved,
    *,
    run: Path | None = None,
    fresh: bool = False,
    need_end: bool = True,
    reporter: Reporter = SILENT,
) -> RunDir:
    """From a repository to a judged model, or from examples to a trained one; resumes.

    Args:
        source: a directory (mine, raft, validate, train, eval), or examples.jsonl or "-"
            (training alone).
        run: the run directory (None: .forge/runs/ and the source's name).
    """
    if source != "-" and Path(source).is_dir():
        path = Path(source).resolve()
        # Before the work that comes first: a mistyped name should not cost a mining.
        resolve_model(resolved.settings, reporter)
        directory = _open(path.name or "root", str(path), resolved, run, fresh)
        with directory.locked():
            with_data(directory, path, resolved.settings, reporter)
            fit(directory, resolved.settings, reporter)
            judge(directory, reporter)
        return directory
    if source != "-" and not Path(source).exists():
        raise UsageError(
            f"{source}: no such file or directory", "give a repository or examples.jsonl"
        )
    examples = list(read_records(source, Example, need_end=need_end))
    digest = hashlib.sha256("".join(e.id + str(e.split) for e in examples).encode()).hexdigest()
    name = Path(source).stem if source != "-" else f"stdin-{digest[:8]}"
    directory = _open(name, f"sha256:{digest}", resolved, run, fresh)
    with directory.locked():
        if not directory.is_done("data"):
            _check_splits(examples, source)
            write_records(examples, directory.file("data", "examples.jsonl"))
            directory.finish("data", examples=len(examples))
        fit(directory, resolved.settings, reporter)
    return directory


def resolve_model(s: Settings, reporter: Reporter) -> Path:
    """The directory of the model; UsageError or ForgeError where there is none."""
    from forge_cli.models.resolve import resolve

    return resolve(s.model, reporter=reporter)


def _open(name: str, source: str, resolved: Resolved, run: Path | None, fresh: bool) -> RunDir:
    path = run or RUNS / name
    if run is None:
        # Runs must not be mined, nor committed, when they stand in the repository.
        RUNS.mkdir(parents=True, exist_ok=True)
        (RUNS.parent / ".gitignore").write_text("*\n")
    identity = resolved.identity()
    return RunDir.open(path, identity, resolved.origins, source=source, fresh=fresh)


def _check_splits(examples: list[Example], source: str) -> None:
    if not examples:
        raise ForgeError(f"{source}: no examples", "run forge validate first")
    if missing := sum(example.split is None for example in examples):
        raise ForgeError(
            f"{source}: {missing} of {len(examples)} examples have no split",
            "run forge validate first: it checks them and splits them by file",
        )


def with_data(run: RunDir, path: Path, s: Settings, reporter: Reporter) -> None:
    """Mine, raft and validate into data/, each once."""
    chunks = run.file("data", "chunks.jsonl")
    raw = run.file("data", "raft.jsonl")
    sound = run.file("data", "examples.jsonl")
    rejects = run.file("data", "rejects.jsonl")
    if not run.is_done("mine"):
        verdicts: list[Verdict] = []
        mined = mine_chunks(path, s, reporter, verdicts.append)
        count = write_records(mined.lines(), chunks)
        write_records(verdicts, run.file("data", "files-left-out.jsonl"))
        run.finish("mine", chunks=count, rejected=len(verdicts))
    if not run.is_done("raft"):
        found = make_examples(read_records(chunks, Chunk), s, reporter)
        run.finish("raft", examples=write_records(found, raw))
    if not run.is_done("data"):
        refused: list[Verdict] = []
        examples = validated(read_records(raw, Example), s, reporter, refused.append)
        write_records(examples, sound)
        write_records(refused, rejects)
        run.finish("data", examples=len(examples), rejected=len(refused))


def mine_chunks(
    path: Path, s: Settings, reporter: Reporter, on_reject: Callable[[Verdict], None] | None = None
) -> Mined:
    """The mine stage with these settings."""
    from forge_cli import mine

    return mine.run(
        path,
        langs=s.lang,
        max_chars=s.max_chars,
        jobs=s.jobs,
        links=s.links,
        cache=cache_dir() / "mine" if s.cache else None,
        on_reject=on_reject,
        reporter=reporter,
    )


def make_examples(
    chunks: Iterable[Chunk],
    s: Settings,
    reporter: Reporter,
    on_reject: Callable[[Verdict], None] | None = None,
) -> Iterable[Example]:
    """The raft stage with these settings."""
    from forge_cli import raft
    from forge_cli.raft.teachers import open_teacher

    kept = cache_dir() / "teachers" if s.cache else None
    teacher = open_teacher(
        s.teacher,
        url=s.teacher_url,
        jobs=s.teacher_jobs,
        timeout=s.teacher_timeout,
        cache=kept,
    )
    return raft.run(
        chunks,
        distractors=s.distractors,
        oracle_p=s.oracle_p,
        questions=s.questions,
        seed=s.seed,
        teacher=teacher,
        teacher_price=s.teacher_price,
        on_reject=on_reject,
        reporter=reporter,
    )


def validated(
    examples: Iterable[Example],
    s: Settings,
    reporter: Reporter,
    on_reject: Callable[[Verdict], None] | None = None,
    on_report: Callable[[Report], None] | None = None,
) -> list[Example]:
    """The validate stage with these settings; the report's summary is noted."""
    from forge_cli import validate

    def report(found: Report) -> None:
        reporter.note(found.lines()[0])
        if on_report:
            on_report(found)

    return validate.run(
        examples,
        model=s.model,
        max_tokens=s.max_tokens,
        test_share=s.test_share,
        valid_share=s.valid_share,
        split=s.split,
        seed=s.seed,
        min_examples=s.min_examples,
        max_rejects=s.max_rejects,
        min_quality=s.min_quality,
        fix=s.fix,
        on_reject=on_reject,
        on_report=report,
        reporter=reporter,
    )


def fit(run: RunDir, s: Settings, reporter: Reporter) -> None:
    """The train stage over data/examples.jsonl, once; an interrupted one resumes."""
    if run.is_done("train"):
        reporter.note(f"{run.path}: already trained; --fresh starts over")
        return
    from forge_cli import train as stage
    from forge_cli.models.load import fingerprint

    run.state["model_files"] = fingerprint(resolve_model(s, reporter))
    run.save()
    started = time.monotonic()
    result = stage.run(
        list(read_records(run.file("data", "examples.jsonl"), Example)),
        out=run.path,
        reporter=reporter,
        **_train_settings(s),
    )
    run.record(
        train={
            "steps": result.steps,
            "best_step": result.best_step,
            "best_valid_loss": result.best_valid_loss,
        }
    )
    run.finish("train", seconds=round(time.monotonic() - started, 1))
    reporter.note(
        f"trained {result.steps} steps; the best adapters (step {result.best_step}, "
        f"valid loss {result.best_valid_loss:.4f}) are in {result.adapters}"
    )


def _train_settings(s: Settings) -> dict[str, Any]:
    names = (
        "model", "init", "rank", "rank_pattern", "alpha", "rslora", "dora", "svd_iterations",
        "alternations", "bits", "quant_mode", "group_size", "targets", "layers", "steps",
        "epochs", "learning_rate", "warmup", "weight_decay", "clip", "valid_every", "valid_rows",
        "max_tokens", "seed",
    )  # fmt: skip
    cache = cache_dir() / "starts" if s.cache else None
    return {"cache": cache, **{name: getattr(s, name) for name in names}}


def evaluate(run: RunDir, reporter: Reporter, *, answer_rows: int | None = None) -> None:
    """The eval stage on the run's test rows."""
    with run.locked():
        judge(run, reporter, answer_rows=answer_rows)


def judge(run: RunDir, reporter: Reporter, *, answer_rows: int | None = None) -> None:
    """The eval stage, in a run that is locked."""
    from forge_cli import evaluate as stage

    s = Settings(**run.state["settings"])
    _need(run, "train", "forge train")
    wanted = s.answer_rows if answer_rows is None else answer_rows
    if run.state["stages"].get("eval") == {"answer_rows": wanted}:
        reporter.note(f"{run.path}: already judged")
        return
    metrics = stage.run(
        test_rows(run),
        adapters=run.path / "adapters",
        out=run.path / "eval",
        rows=s.eval_rows,
        answer_rows=wanted,
        resamples=s.resamples,
        seed=s.seed,
        reporter=reporter,
    )
    nested: dict[str, dict[str, Any]] = {}
    for name, value in metrics.items():
        suite, _, metric = name.partition(".")
        nested.setdefault(suite, {})[metric] = value
    run.record(eval=nested)
    run.finish("eval", answer_rows=wanted)


def test_rows(run: RunDir) -> list[Example]:
    """The held-out rows of a run."""
    file = run.file("data", "examples.jsonl")
    return [example for example in read_records(file, Example) if example.split == "test"]


def export(run: RunDir, s: Settings, reporter: Reporter) -> None:
    """The export stage: GGUF files in export/, checked."""
    from forge_cli import export as stage

    _need(run, "train", "forge train")
    with run.locked():
        files, facts = stage.run(
            adapters=run.path / "adapters",
            out=run.path / "export",
            name=run.path.name,
            quants=s.quant,
            held_out=test_rows(run),
            parity=s.parity,
            reporter=reporter,
        )
        run.record(export=run.state["metrics"].get("export", {}) | facts)
        run.add_files([str(file) for file in files])


def deploy(run: RunDir, s: Settings, *, name: str, dry_run: bool, reporter: Reporter) -> None:
    """Deploy the run's smallest exported GGUF; the smoke question is one of its test rows."""
    found = [Path(file) for file in run.state["files"] if file.endswith(".gguf")]
    found = [file for file in found if file.exists()]
    if not found:
        raise UsageError(f"{run.path}: nothing is exported", f"run: forge export {run.path}")
    file = min(found, key=lambda f: f.stat().st_size)
    asked = next((e for e in test_rows(run) if any(d.oracle for d in e.documents)), None)
    smoke = [(asked.messages[:-1], "")] if asked else []
    deploy_file(file, s, name=name, dry_run=dry_run, reporter=reporter, smoke=smoke)
    run.record(deploy={"name": name, "file": str(file), "dry_run": dry_run})


def deploy_file(
    file: Path,
    s: Settings,
    *,
    name: str,
    dry_run: bool,
    reporter: Reporter,
    smoke: list[Any] | None = None,
) -> None:
    """The deploy stage over one GGUF file."""
    from forge_cli import deploy as stage

    result = stage.run(
        file,
        name=name,
        host=s.host,
        out_dir=file.parent,
        system=SYSTEM,
        parameters={"temperature": 0},
        smoke=smoke or [],
        dry_run=dry_run,
        reporter=reporter,
    )
    for answer in result.answers:
        reporter.note(f"smoke question: {answer.question[-160:]}\nanswer: {answer.answer}")


def plan(source: str, resolved: Resolved, reporter: Reporter, *, need_end: bool = True) -> None:
    """Say what training would do: rows, contexts and steps. Nothing is written."""
    s = resolved.settings
    if source != "-" and Path(source).is_dir():
        chunks = mine_chunks(Path(source), s, reporter)
        # A plan costs nothing: the teacher is not asked.
        untaught = s.model_copy(update={"teacher": "none"})
        examples = validated(make_examples(chunks, untaught, reporter), s, reporter)
        if s.teacher != "none":
            reporter.note(f"{s.teacher} was not asked: its questions would come on top")
    else:
        examples = list(read_records(source, Example, need_end=need_end))
        _check_splits(examples, source)
    rows = [e for e in examples if e.split == "train"]
    contexts = len({e.context_id for e in rows})
    steps = s.steps or max(1, round(contexts * s.epochs))
    for key, origin in resolved.origins.items():
        if origin != "default":
            reporter.note(f"{key}: {getattr(s, key)} ({origin})")
    reporter.note(
        f"would train {s.model} ({s.bits}-bit, {s.init}, rank {s.rank}) on {len(rows)} rows in "
        f"{contexts} contexts for about {steps} steps, one context a step; nothing was written"
    )


def _need(run: RunDir, stage: str, command: str) -> None:
    if not run.is_done(stage):
        raise UsageError(f"{run.path}: not trained yet", f"run: {command}")
