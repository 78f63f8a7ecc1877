"""The rendered prompt of an exported file, byte for byte: its template in llama.cpp's own engine.

Training renders with transformers' Jinja; who serves the file renders with llama.cpp's. A prompt
that differs is one that the model was not trained on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from forge_cli.core.records import Example, Message
from forge_cli.export.parity import Probe, parting, token_difference
from forge_cli.models.backend import mx
from forge_cli.models.chat import prompt_ids, prompt_text
from forge_cli.models.llama_server import LlamaServer, program
from forge_cli.models.load import Loaded

# Enough positions for a top-1 share to be worth printing.
_POSITIONS = 600


def make_probes(loaded: Loaded, held_out: Sequence[Example]) -> list[Probe]:
    """Held-out prompts with the trained model's logits, float32 [T, vocab]."""
    found = []
    positions = 0
    for example in held_out:
        prompt = example.messages[:-1]
        ids = prompt_ids(loaded.tokenizer, prompt)
        text = prompt_text(loaded.tokenizer, prompt)
        logits = np.array(loaded.model(mx.array([ids]))[0].astype(mx.float32))
        found.append(Probe(prompt, text, ids, logits, _today(loaded.tokenizer, prompt, text)))
        positions += len(ids)
        if positions >= _POSITIONS:
            break
    return found


def _today(tokenizer: Any, prompt: Sequence[Message], text: str) -> tuple[str, list[int]] | None:
    """The prompt with the date that llama.cpp hands to every template, if it prints that."""
    now = {"date_string": time.strftime("%d %b %Y")}
    dated = prompt_text(tokenizer, prompt, **now)
    return None if dated == text else (dated, prompt_ids(tokenizer, prompt, **now))


@dataclass(frozen=True)
class PromptsResult:
    """How the file's prompts compare with those of training.

    Attributes:
        equal: None where the wheel has no server, so that nothing was compared.
        dated: equal only once training's date is replaced by today's.
    """

    equal: bool | None
    dated: bool = False
    failures: list[str] = field(default_factory=list)


def compare_prompts(gguf: Path, probes: Sequence[Probe]) -> PromptsResult:
    """Render the probes' chats by the file's template, and read them as the server does.

    Raises:
        ForgeError: llama-server refuses the file, or a chat that training could render.
    """
    if program() is None:
        return PromptsResult(None)
    dated = False
    failures = []
    with LlamaServer(gguf) as server:
        for number, probe in enumerate(probes, 1):
            served = server.render([m.model_dump() for m in probe.messages])
            ids = server.tokenise(served)
            difference = _difference(served, ids, probe.text, probe.ids)
            if difference and probe.today and not _difference(served, ids, *probe.today):
                dated = True
            elif difference:
                failures.append(f"prompt {number}: {difference}")
    return PromptsResult(not failures, dated, failures)


def _difference(served: str, served_ids: list[int], text: str, ids: list[int]) -> str:
    """What is unlike; "" if nothing is.

    Where the tokenizer puts BOS before every text, llama.cpp leaves it out of the rendering.
    """
    if served == text or (text.endswith(served) and served_ids == ids):
        return token_difference(served_ids, ids)
    at = parting(served, text)
    return (
        f"llama.cpp renders it otherwise from character {at} on: "
        f"{served[at : at + 40]!r} instead of {text[at : at + 40]!r}"
    )


__all__ = ["PromptsResult", "compare_prompts", "make_probes"]
