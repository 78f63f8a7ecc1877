"""Tiny random models on disk in Hugging Face form, and examples to train them on."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from forge_cli.core.records import Answer, Document, Example, Message, Origin
from forge_cli.models.backend import mx, nn
from tiny_gguf import random_weights, save_tokenizer, tiny_config

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PRE = {
    "llama": "smollm",
    "qwen2": "qwen2",
    "qwen3": "qwen2",
    "qwen3_moe": "qwen2",
    "mixtral": "smollm",
}


def save_model(folder: Path, model_type: str = "llama", **changes: Any) -> Path:
    """A complete model directory with float16 weights; `changes` go into its config."""
    vocab = save_tokenizer(folder, PRE[model_type])
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    small = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, **changes}
    config = tiny_config(model_type, vocab, **small)
    (folder / "config.json").write_text(json.dumps(config))
    weights = {k: v.astype(np.float16) for k, v in random_weights(config).items()}
    save_file(weights, str(folder / "model.safetensors"))
    return folder


def random_model(model_type: str, **changes: Any) -> nn.Module:
    """A float32 model in memory, without a tokenizer."""
    small = {"hidden_size": 128, "intermediate_size": 192, **changes}
    config = tiny_config(model_type, 300, **small)
    family = importlib.import_module(f"mlx_lm.models.{model_type}")
    model = family.Model(family.ModelArgs.from_dict(config))
    weights = random_weights(config)
    model.load_weights([(name, mx.array(value)) for name, value in weights.items()])
    return model


def example(context: int, question: int, split: str = "train", *, size: int = 12) -> Example:
    """A row about document `context`; `size` lines make its prompt longer."""
    text = "\n".join(f"value_{context}_{line} = {line * (context + 3)}" for line in range(size))
    final = f"value_{context}_{question} is {question * (context + 3)}."
    return Example(
        id=f"{context}-{question}",
        context_id=f"context-{context}",
        documents=[Document(id=f"d{context}", path=f"f{context}.py", text=text, oracle=True)],
        question=f"What is value_{context}_{question}?",
        answer=Answer(reason="It stands there.", final=final),
        messages=[
            Message(role="system", content="Answer from the documents."),
            Message(role="user", content=f"{text}\n\nWhat is value_{context}_{question}?"),
            Message(role="assistant", content=final),
        ],
        origin=Origin(kind="value", chunk=f"d{context}"),
        split=split,  # type: ignore[arg-type]
    )


def examples() -> list[Example]:
    """Three contexts of three rows to train on, one of two rows to validate."""
    rows = [example(context, question) for context in range(3) for question in range(3)]
    return rows + [example(7, question, "valid") for question in range(2)]


def logits(model: nn.Module, ids: list[int]) -> np.ndarray:
    """Logits [T, vocab] of one sequence."""
    return np.array(model(mx.array([ids]))[0].astype(mx.float32))
