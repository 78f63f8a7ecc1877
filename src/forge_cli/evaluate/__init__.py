"""Judge models on held-out rows: `evaluate.run(...)`.

sample → conditions → ask (every side, every question; kept row by row) → metrics → stats
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import atomic_file, write_json
from forge_cli.core.records import Chunk, Example
from forge_cli.evaluate.ask import Heard, Question, ask
from forge_cli.evaluate.conditions import CONDITIONS, choose_examples, put_under
from forge_cli.evaluate.metrics import METRICS, score
from forge_cli.evaluate.retrieval import Retriever
from forge_cli.evaluate.sample import by_kind, spread
from forge_cli.evaluate.sides import SideSpec, open_side
from forge_cli.evaluate.statistics import Comparison, compare, correct
from forge_cli.evaluate.summary import summarise

SIDES = ("base", "base+examples", "tuned")
_MAX_ANSWER = 160


@dataclass(frozen=True)
class Pair:
    """One metric of two sides under one condition.

    Attributes:
        condition: see `evaluate.conditions`.
        reference, side: what is compared with what; the difference is side − reference.
    """

    condition: str
    metric: str
    reference: str
    side: str
    found: Comparison


def run(
    examples: Sequence[Example],
    *,
    adapters: Path,
    out: Path,
    sides: Sequence[str] = SIDES,
    conditions: Sequence[str] = CONDITIONS,
    chunks: Sequence[Chunk] = (),
    rows: int = 200,
    answer_rows: int = 48,
    condition_rows: int = 24,
    resamples: int = 10_000,
    seed: int = 0,
    url: str | None = None,
    reporter: Reporter = SILENT,
) -> list[Pair]:
    """Compare sides on the rows of split "test", the first side with each of the others.

    The base is quantised as the tuned model is, and gets the same prompt, which describes the
    answer form; base+examples is also shown two worked answers, so that what is won by knowing
    the form alone can be told from what is won by knowing the code. Answers are greedy.

    Writes `out`/raft.jsonl (a line per row: each side's losses, answers and scores),
    `out`/pairs.json, `out`/sides.json (each side by itself), and `out`/cache/, from which a run
    that was stopped goes on.

    Args:
        adapters: of the run that is judged, which says what its base is.
        sides: see `evaluate.sides`.
        conditions: under which answers are asked for; losses are taken under "given".
        chunks: where documents are retrieved from (none: nothing is asked under "retrieved").
        rows: test rows for the loss. answer_rows: of these, how many to answer as given,
            condition_rows: and under each other condition.
        url: of the server, for ollama: and openai:.

    Raises:
        UsageError: a side is not known. ForgeError: no test rows, or a model that fails.
    """
    specs = [SideSpec.parse(side) for side in sides]
    seen, unseen = (spread(found, rows, seed) for found in by_kind(examples))
    test = seen or unseen
    if not test:
        raise ForgeError("no rows of split test", "run forge validate before forge train")
    retriever = Retriever(chunks) if chunks and "retrieved" in conditions else None
    asked = [c for c in conditions if retriever or c != "retrieved"]
    questions = _questions(seen, unseen, asked, answer_rows, condition_rows, retriever)
    shown = choose_examples([e for e in examples if e.split == "train"])
    heard: dict[str, Heard] = {}
    # All are opened before one is asked: a name that is wrong should not cost an hour.
    opened = {
        spec.model: open_side(spec, adapters, url=url, max_tokens=_longest(test)) for spec in specs
    }
    for model, side in opened.items():
        for spec in (spec for spec in specs if spec.model == model):
            heard[spec.text] = ask(spec, side, questions, test, shown, out / "cache", reporter)
        side.close()
    scores = {
        name: [score(q.example, a.text) for q, a in zip(questions, found.answers, strict=True)]
        for name, found in heard.items()
    }
    _save(out / "raft.jsonl", test, questions, heard, scores)
    pairs = _pairs([spec.text for spec in specs], test, questions, heard, scores, resamples, seed)
    write_json(out / "pairs.json", [asdict(pair) for pair in pairs])
    alone = {name: summarise(questions, heard[name], scores[name]) for name in heard}
    write_json(out / "sides.json", alone)
    return pairs


def _questions(
    seen: Sequence[Example],
    unseen: Sequence[Example],
    conditions: Sequence[str],
    answer_rows: int,
    condition_rows: int,
    retriever: Retriever | None,
) -> list[Question]:
    found = []
    for condition in CONDITIONS:
        if condition not in conditions:
            continue
        wanted = answer_rows if condition == "given" else min(answer_rows, condition_rows)
        rows = unseen if condition == "unseen" else seen
        under = (put_under(condition, example, retriever) for example in rows[:answer_rows])
        kept = [example for example in under if example is not None]
        found += [Question(condition, example) for example in kept[:wanted]]
    return found


def _longest(test: Sequence[Example]) -> int:
    """Most tokens of an answer: what a model still says after half as much again as the longest
    reference cannot mend it; a base that does not know when to stop would fill any limit."""
    characters = max(len(example.messages[-1].content) for example in test)
    return min(_MAX_ANSWER, max(32, round(1.5 * characters / 3)))


def _pairs(
    names: Sequence[str],
    test: Sequence[Example],
    questions: Sequence[Question],
    heard: Mapping[str, Heard],
    scores: Mapping[str, list[dict[str, float]]],
    resamples: int,
    seed: int,
) -> list[Pair]:
    """Every two sides, an earlier one as reference for a later one."""
    pairs = []
    for at, side in enumerate(names):
        for reference in names[:at]:
            own = []
            before, after = heard[reference].losses, heard[side].losses
            if before is not None and after is not None:
                files = [example.origin.path for example in test]
                found = compare(
                    before, after, files, lower_is_better=True, resamples=resamples, seed=seed
                )
                own.append(Pair("given", "answer_loss", reference, side, found))
            for condition in dict.fromkeys(q.condition for q in questions):
                for metric in METRICS[condition]:
                    places = [
                        i for i, q in enumerate(questions)
                        if q.condition == condition and metric in scores[side][i]
                    ]  # fmt: skip
                    if not places:
                        continue
                    files = [questions[i].example.origin.path for i in places]
                    one, other = ([scores[s][i][metric] for i in places] for s in (reference, side))
                    found = compare(
                        one, other, files, lower_is_better=False, resamples=resamples, seed=seed
                    )
                    own.append(Pair(condition, metric, reference, side, found))
            corrected = correct([pair.found for pair in own])
            pairs += [
                replace(pair, found=found) for pair, found in zip(own, corrected, strict=True)
            ]
    return pairs


def _save(
    path: Path,
    test: Sequence[Example],
    questions: Sequence[Question],
    heard: Mapping[str, Heard],
    scores: Mapping[str, list[dict[str, float]]],
) -> None:
    """A line for each row under each condition, and for each row of which only a loss is known."""
    losses = {name: dict(zip([e.id for e in test], found.losses or [], strict=bool(found.losses)))
              for name, found in heard.items()}  # fmt: skip
    answered = {q.example.id for q in questions if q.condition == "given"}
    lines = [_line(q.example, q.condition) for q in questions]
    for index, question in enumerate(questions):
        for name, found in heard.items():
            answer = found.answers[index]
            own: dict[str, Any] = {"text": answer.text, **scores[name][index]}
            if answer.confidence is not None:
                own["confidence"] = round(answer.confidence, 4)
            if question.condition == "given" and question.example.id in losses[name]:
                own["loss"] = losses[name][question.example.id]
            lines[index]["sides"][name] = own
    for example in test:
        if example.id not in answered:
            line = _line(example, "given")
            line["sides"] = {
                n: {"loss": found[example.id]} for n, found in losses.items() if example.id in found
            }
            lines.append(line)
    with atomic_file(path) as stream:
        for line in lines:
            stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def _line(example: Example, condition: str) -> dict[str, Any]:
    return {
        "id": example.id,
        "condition": condition,
        "kind": example.origin.kind,
        "path": example.origin.path,
        "question": example.question,
        "reference": example.messages[-1].content,
        "documents": [document.model_dump() for document in example.documents],
        "sides": {},
    }


__all__ = ["CONDITIONS", "SIDES", "Pair", "run", "spread"]
