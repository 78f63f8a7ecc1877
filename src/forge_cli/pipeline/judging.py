"""The eval stage over a run directory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_cli.core.accelerator import accelerator
from forge_cli.core.config import Settings, checked
from forge_cli.core.errors import GateFailed, UsageError
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Chunk, Example, Preference, as_example
from forge_cli.core.run_dir import RunDir

if TYPE_CHECKING:
    from forge_cli.evaluate import Pair
    from forge_cli.evaluate.report.card import Card
    from forge_cli.evaluate.statistics.verdict import Verdict
    from forge_cli.evaluate.suites import Suite

# What of a run's settings the judge may be told anew.
CHANGES = (
    "eval_rows", "answer_rows", "condition_rows", "conditions", "sides", "suites", "judge",
    "execute", "samples", "test_command",
)  # fmt: skip


def evaluate(
    run: RunDir,
    reporter: Reporter,
    *,
    changes: Mapping[str, Any] | None = None,
    url: str | None = None,
) -> None:
    """The eval stage on the run's test rows.

    Args:
        changes: of `CHANGES`, what differs from the run's settings.
        url: of the server that a side names.
    """
    with run.locked(), accelerator(reporter):
        judge(run, reporter, changes=changes, url=url)


def judge(
    run: RunDir,
    reporter: Reporter,
    *,
    changes: Mapping[str, Any] | None = None,
    url: str | None = None,
) -> None:
    """The eval stage, in a run that is locked."""
    from forge_cli import evaluate as stage
    from forge_cli.evaluate.report import write_reports
    from forge_cli.evaluate.report.card import write_card
    from forge_cli.evaluate.statistics.verdict import combine
    from forge_cli.evaluate.suites import read_suite
    from forge_cli.pipeline.later import later_rows
    from forge_cli.train.callbacks.metrics import read_rows

    if not run.is_done("train"):
        raise UsageError(f"{run.path}: not trained yet", "run: forge train")
    s = _settings(run, changes or {})
    suites = [read_suite(name) for name in s.suites]
    conditions = s.conditions or list(dict.fromkeys(c for one in suites for c in one.conditions))
    asked = {name: getattr(s, name) for name in CHANGES}
    # What the repository holds by now may be asked again.
    if run.state["stages"].get("eval") == asked and "later" not in conditions:
        reporter.note(f"{run.path}: already judged")
        return
    rows = _rows(run)
    pairs = stage.run(
        rows,
        adapters=run.path / "adapters",
        out=run.path / "eval",
        sides=s.sides,
        conditions=conditions,
        chunks=_chunks(run),
        later=later_rows(run, s, reporter) if "later" in conditions else (),
        rows=s.eval_rows,
        answer_rows=s.answer_rows,
        condition_rows=s.condition_rows,
        resamples=s.resamples,
        seed=s.seed,
        samples=s.samples,
        decisive={name for suite in suites for name in suite.rules.named},
        url=url,
        judge=s.judge,
        execute=s.execute,
        root=_root(run),
        test_command=s.test_command,
        reporter=reporter,
    )
    verdict = combine({suite.name: overall(pairs, suite) for suite in suites})
    run.record(eval=as_metrics(pairs), verdict=verdict.model_dump())
    facts = _facts(run, s, conditions)
    deciding = [(_against(pairs, suite), suite.side) for suite in suites]
    facts["decided by"] = "; ".join(
        f"{suite.name}: {against} → {side}"
        for suite, (against, side) in zip(suites, deciding, strict=True)
    )
    page, _ = write_reports(run.path / "eval", pairs, verdict, facts, read_rows(run.path), deciding)
    write_card(run.path / "eval" / "model-card.md", _card(run, s, rows), pairs, verdict)
    reporter.note(f"every answer: {page}")
    run.finish("eval", **asked)


def _settings(run: RunDir, changes: Mapping[str, Any]) -> Settings:
    """The run's settings with these changes."""
    own = dict(run.state["settings"])
    if "suites" in changes:  # each asks what it needs, whatever the run was asked
        own.pop("conditions", None)
    origins = dict.fromkeys(own, f"{run.path}/run.json") | dict.fromkeys(changes, "flag")
    return checked(own | dict(changes), origins)


def _root(run: RunDir) -> Path | None:
    """The folder that was mined; None where training began from finished rows."""
    source = str(run.state["source"])
    return None if source.startswith("sha256:") else Path(source)


def _facts(run: RunDir, s: Settings, conditions: Sequence[str]) -> dict[str, str]:
    """What a reader needs to take the same measurement again."""
    from forge_cli.evaluate.humaneval import TEMPERATURE

    with open(run.path / "adapters" / "adapters.safetensors", "rb") as stream:
        adapters = hashlib.file_digest(stream, "sha256").hexdigest()
    versions = run.state["versions"]
    sides, only, suites = (
        " ".join(f"--{flag} {value}" for value in values)
        for flag, values in (
            ("side", s.sides), ("condition", s.conditions or []), ("suite", s.suites)
        )
    )  # fmt: skip
    facts = {
        "command": f"forge eval {run.path} {suites} {sides} {only}"
        f" --answer-rows {s.answer_rows} --condition-rows {s.condition_rows}"
        + f" --samples {s.samples}" * (s.samples > 1)
        + " --execute" * s.execute,
        "base": f"{s.model}, {s.bits} bits",
        "adapters": f"{s.init}, rank {s.rank}; sha256 {adapters}",
        "trained on": str(run.state["source"]),
        "intervals": f"{s.resamples} resamples of files, seed {s.seed}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    if s.samples > 1 and "humaneval" in conditions:
        drawn = f"{s.samples} answers to each problem, temperature {TEMPERATURE:g}, seed {s.seed}"
        facts["HumanEval"] = drawn
    return facts


def _card(run: RunDir, s: Settings, rows: Sequence[Example]) -> Card:
    from forge_cli.evaluate.report.card import Card
    from forge_cli.models.load import licence_of

    trained = run.state["metrics"].get("train", {})
    how = {
        "adapters": f"{s.init}, rank {s.rank}",
        "base": f"{s.bits} bits, groups of {s.group_size}",
        "loss": s.loss,
        "steps": str(trained.get("steps", s.steps or "")),
        "seed": str(s.seed),
    }
    kinds = Counter(row.origin.kind for row in rows if row.split == "train")
    name = Path(str(run.state["source"])).resolve().name
    return Card(s.model, licence_of(s.model), name, how, kinds)


def overall(pairs: Sequence[Pair], suite: Suite) -> Verdict:
    """The verdict by the suite's rules; against the base where its own choice was not asked."""
    from forge_cli.evaluate.statistics.verdict import decide

    against = _against(pairs, suite)
    read = [p for p in pairs if p.side == suite.side and p.reference == against]
    return decide({f"{p.condition}.{p.metric}": p.found for p in read}, suite.rules)


def _against(pairs: Sequence[Pair], suite: Suite) -> str:
    asked = {pair.reference for pair in pairs if pair.side == suite.side}
    return suite.against if suite.against in asked else "base"


def hold_gates(run: RunDir, gates: Sequence[str]) -> None:
    """Hold what was measured to gates (see `evaluate.gates`).

    Raises:
        GateFailed: with each that does not hold.
    """
    from forge_cli.evaluate.gates import failing

    metrics = run.state["metrics"]
    lost = failing(gates, metrics.get("eval", {}), metrics["verdict"]["outcome"])
    if lost:
        raise GateFailed(
            f"{run.path}: {len(lost)} of {len(gates)} gates: " + "; ".join(lost),
            "train longer or on more rows; the adapters and answers are kept",
        )


def as_metrics(pairs: Sequence[Pair]) -> dict[str, dict[str, Any]]:
    """suite → metric → comparison, as a `run` record has them: base against tuned.

    `raft` has the rows as given, `raft:CONDITION` the others, and `raft+examples` the rows as
    given with the base that is shown worked examples. What asks something else has suites of its
    own, such as `completion`, `perplexity` and `latency`.
    """
    from forge_cli.evaluate.conditions import OTHER

    nested: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        shown = pair.reference == "base+examples"
        if pair.side != "tuned" or pair.reference not in ("base", "base+examples"):
            continue
        own = pair.condition in OTHER
        suite = pair.condition if own else f"raft:{pair.condition}".removesuffix(":given")
        nested.setdefault(suite + "+examples" * shown, {})[pair.metric] = asdict(pair.found)
    return nested


def test_rows(run: RunDir) -> list[Example]:
    """The held-out rows of a run."""
    return [example for example in _rows(run) if example.split == "test"]


def train_rows(run: RunDir) -> list[Example]:
    """The rows that a run was trained on; of preferences, with the chosen answers."""
    pairs = run.file("data", "preferences.jsonl")
    if not pairs.exists():
        return [example for example in _rows(run) if example.split == "train"]
    chosen = (as_example(pair) for pair in read_records(pairs, Preference))
    return [example for example in chosen if example.split == "train"]


def held_out(run: RunDir) -> list[Example]:
    """Texts to compare an exported file on: test rows, or the chosen answers of preferences.

    Where there are no test rows, those that validated: the file is held against the trained
    model, of which both have seen as much.
    """
    pairs = run.file("data", "preferences.jsonl")
    if not pairs.exists():
        return test_rows(run) or [row for row in _rows(run) if row.split == "valid"]
    return [as_example(pair) for pair in read_records(pairs, Preference)]


def _rows(run: RunDir) -> list[Example]:
    file = run.file("data", "examples.jsonl")
    if not file.exists():
        raise UsageError(
            f"{run.path}: trained on preferences: it has no test rows",
            "judge a run over the repository; this one can be exported",
        )
    return list(read_records(file, Example))


def _chunks(run: RunDir) -> list[Chunk]:
    """What was mined; none where training began from finished rows."""
    file = run.file("data", "chunks.jsonl")
    return list(read_records(file, Chunk)) if file.exists() else []
