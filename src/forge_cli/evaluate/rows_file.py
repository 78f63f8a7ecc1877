"""raft.jsonl: every row that was judged, with what each side made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forge_cli.core.jsonl import atomic_file
from forge_cli.evaluate.ask import Heard
from forge_cli.evaluate.asked import Question


def write_rows(
    path: Path,
    questions: Sequence[Question],
    rows: Sequence[Question],
    heard: Mapping[str, Heard],
    scores: Mapping[str, list[dict[str, float]]],
) -> None:
    """A line for each row under each condition, and for each of which only a loss is known.

    Of many answers to one question the first is written, and in the scores how many are right.
    """
    losses = {
        name: dict(zip(map(_key, rows), found.losses or [], strict=bool(found.losses)))
        for name, found in heard.items()
    }
    lines = [_line(question) for question in questions]
    for index, question in enumerate(questions):
        for name, found in heard.items():
            answer = found.answers[index]
            own: dict[str, Any] = {"text": answer.text, **scores[name][index]}
            if answer.confidence is not None:
                own["confidence"] = round(answer.confidence, 4)
            if _key(question) in losses[name]:
                own["loss"] = losses[name][_key(question)]
            lines[index]["sides"][name] = own
    answered = set(map(_key, questions))
    for row in rows:
        if (key := _key(row)) not in answered:
            line = _line(row)
            line["sides"] = {n: {"loss": known[key]} for n, known in losses.items() if key in known}
            lines.append(line)
    with atomic_file(path) as stream:
        for line in lines:
            stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def _key(question: Question) -> tuple[str, str]:
    return question.condition, question.example.id


def _line(question: Question) -> dict[str, Any]:
    example = question.example
    return {
        "id": example.id,
        "condition": question.condition,
        "kind": example.origin.kind,
        "path": example.origin.path,
        "question": example.question,
        "reference": example.messages[-1].content,
        "documents": [document.model_dump() for document in example.documents],
        "sides": {},
    }
