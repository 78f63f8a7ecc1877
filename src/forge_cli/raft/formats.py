"""Other shapes of the same rows, for other trainers: `forge raft --format`."""

from __future__ import annotations

import json
from collections.abc import Callable

from forge_cli.core.answer_form import write_answer
from forge_cli.core.records import Example


def completion(example: Example) -> dict[str, object]:
    """Prompt and completion as two strings: what TRL and mlx-lm call the completion format."""
    prompt = "\n\n".join(message.content for message in example.messages[:-1])
    return {"prompt": prompt, "completion": write_answer(example.answer)}


def reference(example: Example) -> dict[str, object]:
    """The columns of the RAFT authors' own generator, `raft.py` (github.com/ShishirPatil/gorilla).

    Its answer form is ours; `instruction` holds the documents between <DOCUMENT> marks.
    """
    shown = [document.text for document in example.documents]
    oracle = "\n".join(document.text for document in example.documents if document.oracle)
    marked = "".join(f"<DOCUMENT>{text}</DOCUMENT>\n" for text in shown)
    return {
        "id": example.id,
        "type": example.origin.kind,
        "question": example.question,
        "context": {"sentences": [shown], "title": [[d.path for d in example.documents]]},
        "oracle_context": oracle,
        "cot_answer": write_answer(example.answer),
        "instruction": marked + example.question,
    }


FORMATS: dict[str, Callable[[Example], dict[str, object]]] = {
    "completion": completion,
    "reference": reference,
}


def to_line(example: Example, form: str) -> bytes:
    """One line of JSON of the form that `FORMATS` names."""
    return json.dumps(FORMATS[form](example), ensure_ascii=False).encode() + b"\n"
