"""From a repository to sound examples: mine, raft and validate with a run's settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from forge_cli.core.config import Settings
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import read_records, write_records
from forge_cli.core.places import cache_dir
from forge_cli.core.records import Chunk, Example, Verdict
from forge_cli.core.run_dir import RunDir

if TYPE_CHECKING:
    from forge_cli.mine import Mined
    from forge_cli.validate import Report


def with_data(run: RunDir, path: Path, s: Settings, reporter: Reporter) -> None:
    """Mine, raft and validate into data/, each once."""
    mine_into(run, path, s, reporter)
    chunks = run.file("data", "chunks.jsonl")
    raw = run.file("data", "raft.jsonl")
    sound = run.file("data", "examples.jsonl")
    rejects = run.file("data", "rejects.jsonl")
    if not run.is_done("raft"):
        found = make_examples(read_records(chunks, Chunk), s, reporter)
        run.finish("raft", examples=write_records(found, raw))
    if not run.is_done("data"):
        refused: list[Verdict] = []
        examples = validated(read_records(raw, Example), s, reporter, refused.append)
        write_records(examples, sound)
        write_records(refused, rejects)
        run.finish("data", examples=len(examples), rejected=len(refused))


def mine_into(run: RunDir, path: Path, s: Settings, reporter: Reporter) -> None:
    """Mine into data/chunks.jsonl, once."""
    if run.is_done("mine"):
        return
    verdicts: list[Verdict] = []
    mined = mine_chunks(path, s, reporter, verdicts.append)
    count = write_records(mined.lines(), run.file("data", "chunks.jsonl"))
    write_records(verdicts, run.file("data", "files-left-out.jsonl"))
    from forge_cli.mine.history import git

    commit = (git(path, "rev-parse", "HEAD") or "").strip()
    run.finish("mine", chunks=count, rejected=len(verdicts), commit=commit)


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
    only: Collection[str] | None = None,
    beside: Collection[str] | None = None,
) -> Iterable[Example]:
    """The raft stage with these settings; for `only` and `beside` see `raft.run`."""
    from forge_cli import raft
    from forge_cli.teachers import open_teacher

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
        only=only,
        beside=beside,
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
        held_kinds=s.held_kinds,
        seed=s.seed,
        min_examples=s.min_examples,
        max_rejects=s.max_rejects,
        min_quality=s.min_quality,
        fix=s.fix,
        base_loss=s.base_loss,
        on_reject=on_reject,
        on_report=report,
        reporter=reporter,
    )
