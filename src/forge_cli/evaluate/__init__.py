"""Judge models on held-out rows: `evaluate.run(...)`.

choose (rows under conditions) → ask (every side, every question; kept row by row) → metrics →
pairs (statistics)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import write_json
from forge_cli.core.records import Chunk, Example
from forge_cli.evaluate import humaneval
from forge_cli.evaluate.ask import Heard, ask
from forge_cli.evaluate.asked import Asked, choose
from forge_cli.evaluate.conditions import CONDITIONS, QUESTIONS, choose_examples, with_examples
from forge_cli.evaluate.judging import judge_sides
from forge_cli.evaluate.latency import Speed, measure
from forge_cli.evaluate.pairing import Pair, make_pairs
from forge_cli.evaluate.repo_tests import TEST_COMMAND, RepoTests
from forge_cli.evaluate.rows_file import write_rows
from forge_cli.evaluate.sample import spread
from forge_cli.evaluate.scoring import score_answers
from forge_cli.evaluate.sides import Side, SideSpec, open_side
from forge_cli.evaluate.summary import summarise
from forge_cli.teachers import open_teacher

SIDES = ("base", "base+examples", "tuned")


def run(
    examples: Sequence[Example],
    *,
    adapters: Path,
    out: Path,
    sides: Sequence[str] = SIDES,
    conditions: Sequence[str] = QUESTIONS,
    chunks: Sequence[Chunk] = (),
    later: Sequence[Example] = (),
    rows: int = 200,
    answer_rows: int = 48,
    condition_rows: int = 24,
    resamples: int = 10_000,
    seed: int = 0,
    samples: int = 1,
    url: str | None = None,
    execute: bool = False,
    root: Path | None = None,
    test_command: str | Sequence[str] = TEST_COMMAND,
    judge: str | None = None,
    decisive: Collection[str] = (),
    reporter: Reporter = SILENT,
) -> list[Pair]:
    """Compare sides on the rows of split "test", the first side with each of the others.

    The base is quantised as the tuned model is, and gets the same prompt, which describes the
    answer form; base+examples is also shown two worked answers, so that what is won by knowing
    the form alone can be told from what is won by knowing the code. Answers are greedy, but for
    the samples of HumanEval.

    Writes `out`/raft.jsonl (a line per row: each side's losses, answers and scores),
    `out`/pairs.json, `out`/sides.json (each side by itself), `out`/latency.json where that is
    asked for, and `out`/cache/, from which a run that was stopped goes on.

    Args:
        adapters: of the run that is judged, which says what its base is.
        sides: see `evaluate.sides`.
        conditions: under which answers are asked for, or losses taken: see `evaluate.conditions`.
        chunks: what was mined: retrieved documents, definitions to complete, texts to foretell
            (none: nothing is asked under these conditions).
        later: rows about code that was committed after training (condition "later").
        rows: test rows for the loss. answer_rows: of these, how many to answer as given,
            condition_rows: and under each other condition.
        url: of the server, for ollama: and openai:.
        judge: a teacher that compares answers as given (see `evaluate.judge_model`), at `url`.
        decisive: metrics that a suite's rules name (see `pairing.make_pairs`).
        samples: answers to each problem of HumanEval; one is greedy, more are drawn at
            `humaneval.TEMPERATURE` and give pass@k.
        execute: whether generated code may be run, contained (conditions "humaneval" and
            "repo_tests").
        root: the folder that was mined. test_command: runs its tests (see `evaluate.repo_tests`).

    Raises:
        UsageError: a side is not known, code would be run, or `root` is needed and not there.
        ForgeError: no test rows, or a model that fails.
    """
    specs = [SideSpec.parse(side) for side in sides]
    if "humaneval" in conditions:
        humaneval.check_ready(execute=execute)
    tests = None
    if "repo_tests" in conditions:
        tests = RepoTests.over(
            root,
            test_command,
            cache=out / "cache",
            execute=execute,
            reporter=reporter,
            alone=set(conditions) == {"repo_tests"},
        )
    asked = choose(
        examples, chunks, conditions, rows=rows, answer_rows=answer_rows,
        condition_rows=condition_rows, seed=seed, samples=samples, repo_tests=tests, later=later,
    )  # fmt: skip
    for condition in ("completion", "perplexity"):
        if condition in conditions and condition not in asked.conditions and condition_rows:
            reporter.note(f"{condition}: no code of the held-out files is of a length to ask about")
    teacher = open_teacher(judge, url=url) if judge else None
    shown = choose_examples([e for e in examples if e.split == "train"])
    heard: dict[str, Heard] = {}
    # All are opened before one is asked: a name that is wrong should not cost an hour.
    opened = {
        spec.model: open_side(spec, adapters, url=url, max_tokens=asked.longest) for spec in specs
    }
    for model, side in opened.items():
        for spec in (spec for spec in specs if spec.model == model):
            heard[spec.text] = ask(spec, side, asked, shown, out / "cache", reporter)
        side.close()
    speeds = _clock(specs, opened, adapters, asked, shown, out, url, reporter)
    questions = asked.questions
    scores = {name: score_answers(questions, found, tests) for name, found in heard.items()}
    write_rows(out / "raft.jsonl", questions, asked.rows, heard, scores)
    names = [spec.text for spec in specs]
    judged = judge_sides(teacher, names, questions, heard, scores, out, reporter) if teacher else {}
    pairs = make_pairs(
        names, questions, asked.rows, heard, scores, judged=judged, timed=asked.timed,
        speeds=speeds, resamples=resamples, seed=seed, decisive=decisive,
    )  # fmt: skip
    write_json(out / "pairs.json", [asdict(pair) for pair in pairs])
    alone = {name: summarise(questions, heard[name], scores[name]) for name in heard}
    write_json(out / "sides.json", alone)
    return pairs


def _clock(
    specs: Sequence[SideSpec],
    opened: Mapping[str, Side],
    adapters: Path,
    asked: Asked,
    shown: Sequence[Example],
    out: Path,
    url: str | None,
    reporter: Reporter,
) -> dict[str, Speed]:
    """Each side by the clock, where that is asked for; written to `out`/latency.json."""
    if not asked.timed:
        return {}
    found = {}
    for spec in specs:
        worked = shown if spec.examples else ()
        prompts = [with_examples(q.example.messages, worked)[:-1] for q in asked.timed]
        found[spec.text] = measure(
            spec, opened[spec.model], adapters, prompts, out / "cache", reporter,
            url=url, max_tokens=asked.longest,
        )  # fmt: skip
    write_json(out / "latency.json", {name: speed.as_summary() for name, speed in found.items()})
    return found


__all__ = ["CONDITIONS", "SIDES", "Pair", "run", "spread"]
