"""report.html and report.md: what the judge found, for people who were not there."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from forge_cli.core.answer_form import read_answer
from forge_cli.core.jsonl import atomic_file
from forge_cli.evaluate.report.figures import forest, loss_curves
from forge_cli.evaluate.report.names import (
    CONDITION_NAMES,
    METRICS,
    OUTCOMES,
    reason_in_words,
    short_names,
    side_in_words,
)
from forge_cli.evaluate.statistics.verdict import Verdict

if TYPE_CHECKING:
    from forge_cli.evaluate import Pair

# What decides who won a row, the first that both have.
_DECIDES = ("exact_match", "answer_f1", "edit_similarity", "pass@1", "tests_pass")


def write_reports(
    out: Path,
    pairs: Sequence[Pair],
    verdict: Verdict,
    facts: Mapping[str, str],
    trained: Sequence[Mapping[str, Any]] = (),
    deciding: Sequence[tuple[str, str]] = (),
) -> list[Path]:
    """Write report.html and report.md beside the rows and the summaries they are made of.

    Args:
        out: the folder of the eval stage, with raft.jsonl and sides.json.
        facts: name → value, what the data card ends with: model, command, hashes, versions.
        trained: rows of the run's metrics.jsonl, for the loss curves.
        deciding: reference and side of what the verdict is about; shown before the others.
    """
    lines = (out / "raft.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    sides = json.loads((out / "sides.json").read_text(encoding="utf-8"))
    clock = out / "latency.json"
    speeds = json.loads(clock.read_text(encoding="utf-8")) if clock.exists() else {}
    pages = {
        "report.html": render(rows, sides, pairs, verdict, facts, trained, speeds, deciding),
        "report.md": as_markdown(pairs, verdict, facts),
    }
    for name, text in pages.items():
        with atomic_file(out / name) as stream:
            stream.write(text.encode())
    return [out / name for name in pages]


def render(
    rows: Sequence[Mapping[str, Any]],
    sides: Mapping[str, Mapping[str, Any]],
    pairs: Sequence[Pair],
    verdict: Verdict,
    facts: Mapping[str, str],
    trained: Sequence[Mapping[str, Any]] = (),
    speeds: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    deciding: Sequence[tuple[str, str]] = (),
) -> str:
    """The page, which needs nothing else: no network, no script but its own filter."""
    from jinja2 import Environment

    source = files("forge_cli.evaluate.report").joinpath("page.html.j2").read_text("utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    answered = [row for row in rows if any("text" in own for own in row["sides"].values())]
    # Those that decide, then the others, of the later sides first.
    made = dict.fromkeys((pair.reference, pair.side) for pair in reversed(pairs))
    two = [one for one in dict.fromkeys(deciding) if one in made]
    two += [one for one in made if one not in two]
    compared = list(dict.fromkeys([*sides, *speeds, *(side for pair in two for side in pair)]))
    shown = [_as_row(row, list(sides)) for row in answered]
    return environment.from_string(source).render(
        verdict=verdict,
        says=OUTCOMES[verdict.outcome],
        reasons=[reason_in_words(reason) for reason in verdict.reasons],
        compared={side: side_in_words(side) for side in compared},
        measured={m: METRICS[m] for m in dict.fromkeys(pair.metric for pair in pairs)},
        repository=Path(facts.get("trained on", "")).name,
        label=short_names(compared),
        names=CONDITION_NAMES,
        forests=[(one, other, _forest(pairs, one, other)) for one, other in two],
        speeds=speeds,
        curves=loss_curves(trained),
        pairs=pairs,
        two=two,
        sides=sides,
        rows=shown,
        kinds=sorted({row["kind"] for row in shown}),
        conditions=list(dict.fromkeys(row["condition"] for row in shown)),
        counts=Counter(row["kind"] for row in rows if row["condition"] == "given").most_common(),
        total=sum(row["condition"] == "given" for row in rows),
        paths=len({row["path"] for row in rows}),
        facts=facts,
    )


def _forest(pairs: Sequence[Pair], reference: str, side: str) -> str:
    own = [pair for pair in pairs if (pair.reference, pair.side) == (reference, side)]
    return forest(own, f"Differences from {reference} to {side}")


def _as_row(row: Mapping[str, Any], sides: Sequence[str]) -> dict[str, Any]:
    """A row of the explorer: who won, and each side's answer with its quotes marked."""
    answers = []
    for side in sides:
        own = row["sides"].get(side, {})
        if "text" in own:
            answers.append({
                "side": side,
                "html": _marked(own["text"], row["documents"]),
                "scores": _scores(own),
            })  # fmt: skip
    return {**row, "answers": answers, "winner": _winner(row, sides)}


def _scores(own: Mapping[str, Any]) -> dict[str, float | str]:
    """What stands below an answer; where it is the first of many, how many of them pass."""
    hidden = ("text", "confidence", "correct", "samples")
    shown: dict[str, float | str] = {k: v for k, v in own.items() if k not in hidden}
    if "samples" in own:
        shown["correct"] = f"{own['correct']} of {own['samples']} answers, the first is shown"
    return shown


def _winner(row: Mapping[str, Any], sides: Sequence[str]) -> str:
    """The side that alone has the best score; "" for a tie."""
    for metric in _DECIDES:
        scores = {s: row["sides"].get(s, {}).get(metric) for s in sides}
        known = {side: value for side, value in scores.items() if value is not None}
        best = [side for side, value in known.items() if value == max(known.values())]
        if len(best) == 1 and len(known) > 1:
            return best[0]
    return ""


def _marked(text: str, documents: Sequence[Mapping[str, Any]]) -> str:
    """The answer as HTML; each quote marked as right, from a wrong document, or made up."""
    marked = html.escape(text)
    for quote in read_answer(text).quotes:
        where = [document["oracle"] for document in documents if quote.text in document["text"]]
        kind = "right" if any(where) else "wrong" if where else "madeup"
        said = {
            "right": "in the right document",
            "wrong": "in a wrong document",
            "madeup": "in no document",
        }[kind]
        own = html.escape(quote.text)
        marked = marked.replace(own, f'<mark class="{kind}" title="{said}">{own}</mark>', 1)
    return marked


def as_markdown(pairs: Sequence[Pair], verdict: Verdict, facts: Mapping[str, str]) -> str:
    """The same in short, for a pull request or a terminal."""
    lines = [f"# Verdict: {verdict.outcome}", ""]
    lines += [f"- {reason}" for reason in verdict.reasons]
    head = "| condition | metric | from → to | difference | 95 % interval | sample | verdict |"
    for reference, side in dict.fromkeys((pair.reference, pair.side) for pair in pairs):
        lines += ["", f"## {reference} → {side}", "", head, "|" + "---|" * 7]
        for pair in pairs:
            if (pair.reference, pair.side) == (reference, side):
                c = pair.found
                lines.append(
                    f"| {pair.condition} | {pair.metric} | {c.base:.3f} → {c.tuned:.3f} | "
                    f"{c.difference:+.3f} | [{c.low:+.3f}, {c.high:+.3f}] | "
                    f"{c.n} rows, {c.clusters} files | {c.verdict} |"
                )
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    return "\n".join(lines)
