"""samples.jsonl: what the model answers to a few validation prompts while it learns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forge_cli.core.jsonl import atomic_file
from forge_cli.core.records import Example
from forge_cli.models.generate import generate
from forge_cli.models.load import Loaded
from forge_cli.train.callbacks.protocol import Callback, Run, Validation

FILE = "samples.jsonl"


class Samples(Callback):
    """Greedy answers to the prompts of `examples`, every `every` validations from the first on."""

    def __init__(
        self, loaded: Loaded, examples: Sequence[Example], *, every: int, max_tokens: int
    ) -> None:
        self.loaded, self.examples = loaded, examples
        self.every, self.max_tokens = every, max_tokens

    def on_start(self, run: Run) -> None:
        """Drop the answers of validations that are done again."""
        path = run.out / FILE
        if path.exists():
            _write(path, [row for row in _rows(path) if row["step"] <= run.progress.validated])

    def on_validation(self, run: Run, validation: Validation) -> None:
        """Write the answers at this step."""
        if (len(validation.history) - 1) % self.every:
            return
        prompts = [example.messages[:-1] for example in self.examples]
        answers = generate(self.loaded, prompts, self.max_tokens)
        rows = [
            {
                "step": validation.step,
                "id": example.id,
                "question": example.question,
                "expected": example.messages[-1].content,
                "answer": answer.text,
            }
            for example, answer in zip(self.examples, answers, strict=True)
        ]
        _write(run.out / FILE, [*_rows(run.out / FILE), *rows])


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with atomic_file(path) as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
