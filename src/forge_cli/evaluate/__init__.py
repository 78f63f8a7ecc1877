"""Judge the tuned model against its base on held-out rows: `evaluate.run(...)`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import atomic_file
from forge_cli.core.records import Example

T = TypeVar("T")
# Lower is better for the loss only.
_SCORES = ("answer_f1", "quote_correct", "abstention")


def run(
    examples: Sequence[Example],
    *,
    adapters: Path,
    out: Path,
    rows: int = 200,
    answer_rows: int = 48,
    resamples: int = 10_000,
    seed: int = 0,
    reporter: Reporter = SILENT,
) -> dict[str, dict[str, Any]]:
    """Compare base and tuned on the rows of split "test".

    The base is quantised as the tuned model is, and gets the same prompt, which
    describes the answer form. Answers are greedy. Writes `out`/raft.jsonl, one line per
    row with both sides' losses and answers.

    Args:
        rows: test rows for the loss, answer_rows: of these, how many to generate for.

    Returns:
        metric → base, tuned, difference, low, high, n, clusters, verdict; metrics are
        `raft.answer_loss`, `raft.answer_f1`, `raft.quote_correct`, `raft.abstention`.

    Raises:
        ForgeError: no test rows.
    """
    from forge_cli.models.adapters import load_tuned
    from forge_cli.models.load import load_base

    test = spread([e for e in examples if e.split == "test"], rows, seed)
    if not test:
        raise ForgeError("no rows of split test", "run forge validate before forge train")
    asked = test[:answer_rows]
    config = json.loads((adapters / "config.json").read_text())
    sides: dict[str, dict[str, list[Any]]] = {}
    for side in ("base", "tuned"):
        if side == "base":
            loaded = load_base(
                config["model"],
                bits=config["bits"],
                group_size=config["group_size"],
                mode=config.get("mode", "affine"),
                reporter=reporter,
            )
        else:
            loaded = load_tuned(adapters, reporter=reporter)
        sides[side] = _judge(loaded, test, asked, side, reporter)
        del loaded
    _save(out / "raft.jsonl", test, sides)
    return _compare(test, asked, sides, resamples, seed)


def spread(examples: Sequence[Example], limit: int, seed: int) -> list[Example]:
    """Up to `limit` rows of whole contexts, from as many files as there are.

    An interval needs files (its clusters) more than rows. Contexts stay whole because rows
    share their prefix, but the rows come in turns, one of each context, so that the first
    few are from many files too. Seeded.
    """
    import random

    rng = random.Random(f"{seed}/test")
    contexts: dict[str, list[Example]] = {}
    for example in examples:
        contexts.setdefault(example.context_id, []).append(example)
    order = [contexts[context] for context in sorted(contexts)]
    rng.shuffle(order)
    order = _in_turns(order, lambda rows: rows[0].origin.path)
    chosen = [example for rows in order for example in rows][:limit]
    rng.shuffle(chosen)
    return _in_turns(chosen, lambda example: example.context_id)


def _in_turns(items: Sequence[T], key: Callable[[T], str]) -> list[T]:
    """The first of each key, then the second of each, and so on."""
    met: Counter[str] = Counter()
    turns = []
    for place, item in enumerate(items):
        turns.append((met[key(item)], place))
        met[key(item)] += 1
    return [items[place] for _, place in sorted(turns)]


def _judge(
    loaded: Any, test: list[Example], asked: list[Example], side: str, reporter: Reporter
) -> dict[str, list[Any]]:
    from forge_cli.evaluate.answers import generate
    from forge_cli.evaluate.metrics import score
    from forge_cli.models.answer_losses import answer_losses

    losses = answer_losses(loaded, test, side, reporter)
    texts = generate(loaded, asked, side, reporter) if asked else []
    scores = [score(example, text) for example, text in zip(asked, texts, strict=True)]
    return {"loss": losses, "text": texts, "scores": scores}


def _compare(
    test: list[Example],
    asked: list[Example],
    sides: dict[str, dict[str, list[Any]]],
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    from forge_cli.evaluate.stats import compare

    found = {
        "raft.answer_loss": compare(
            sides["base"]["loss"],
            sides["tuned"]["loss"],
            [example.origin.path for example in test],
            lower_is_better=True,
            resamples=resamples,
            seed=seed,
        ).as_dict()
    }
    for name in _SCORES if asked else ():
        found[f"raft.{name}"] = compare(
            [row[name] for row in sides["base"]["scores"]],
            [row[name] for row in sides["tuned"]["scores"]],
            [example.origin.path for example in asked],
            lower_is_better=False,
            resamples=resamples,
            seed=seed,
        ).as_dict()
    return found


def _save(path: Path, test: list[Example], sides: dict[str, dict[str, list[Any]]]) -> None:
    with atomic_file(path) as stream:
        for index, example in enumerate(test):
            row: dict[str, Any] = {
                "id": example.id,
                "kind": example.origin.kind,
                "path": example.origin.path,
                "question": example.question,
                "reference": example.messages[-1].content,
                "oracle": any(document.oracle for document in example.documents),
            }
            for side, values in sides.items():
                row[side] = {"loss": values["loss"][index]}
                if index < len(values["text"]):
                    row[side] |= {"text": values["text"][index], **values["scores"][index]}
            stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


__all__ = ["run"]
