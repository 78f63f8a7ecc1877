"""The losses that training has to come to, step by step: python tests/golden/make_losses.py

Tiny models with seeded weights, four optimiser steps of two contexts. `forge` is what the train
stage's own parts gave when the file was made. `plain` is the same by other means, for what can be
written down without a quantiser: each row alone through mlx-lm's model with its own attention and
activations, W − s·B₀A₀ + s·BA put together for each step, PiSSA by NumPy's SVD, and clipping and
AdamW in NumPy's float64. The file is only written where both agree.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from forge_cli.models import attention
from forge_cli.models.adapters import AdapterConfig, adapter_arrays, get_module
from forge_cli.models.backend import mx, nn
from forge_cli.models.shared_context import Row, group_rows
from forge_cli.train.dpo import Pair, log_probabilities, pair_loss
from forge_cli.train.initial import StartSettings, start_adapters
from forge_cli.train.micro_batches import Batch, Loss, as_batch, group_loss
from forge_cli.train.optimisers import make_optimiser
from forge_cli.train.step import Stepper

FILE = Path(__file__).with_name("losses.json")
STEPS, RATE, CLIP, RANK, ALPHA, BETA, SEED = 4, 5e-3, 1.0, 4, 8.0, 0.3, 3
TARGETS = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
_LLAMA = {"tie_word_embeddings": True}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LLAMA),
    "mistral": (
        "llama",
        {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 24},
    ),
    "qwen2": ("qwen2", _LLAMA),
    "qwen3": ("qwen3", {"tie_word_embeddings": False}),
    "gemma3": (
        "gemma3_text",
        {"sliding_window": 512, "query_pre_attn_scalar": 16, "sliding_window_pattern": 2},
    ),
}


@dataclass(frozen=True)
class Case:
    """A model, a loss, an init, and the bits of the base."""

    model: str
    loss: str = "sft"
    init: str = "pissa"
    bits: int = 16

    @property
    def name(self) -> str:
        """What the file calls it."""
        return f"{self.model} {self.loss} {self.init} {self.bits}"

    @property
    def has_plain(self) -> bool:
        """Whether it is also made by other means."""
        return self.bits == 16 and self.init in ("pissa", "lora")


CASES = [
    *(Case(model) for model in MODELS),
    *(Case("llama", loss) for loss in ("raft", "dpo")),
    *(Case("llama", init=init) for init in ("lora", "dora")),
    *(Case("qwen3", init=init, bits=4) for init in ("pissa", "qpissa", "loftq")),
]


def make_model(name: str) -> nn.Module:
    """Weights by NumPy, so that they are the same everywhere; float16 holds them exactly."""
    kind, changes = MODELS[name]
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    config = {
        "model_type": kind, "hidden_size": 64, "intermediate_size": 128, "vocab_size": 256,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "max_position_embeddings": 512, **changes,
    }  # fmt: skip
    model: nn.Module = module.Model(module.ModelArgs.from_dict(config))
    random = np.random.default_rng(SEED)
    arrays = {}
    for path, array in sorted(tree_flatten(model.parameters())):
        value = random.standard_normal(array.shape) / np.sqrt(array.shape[-1])
        value = 1 + value if array.ndim == 1 and "norm" in path else value
        arrays[path] = mx.array(value.astype(np.float16).astype(np.float32))
    model.load_weights(list(arrays.items()))
    model.freeze()
    return model


def make_rows(case: Case) -> list[list[Row]]:
    """Two contexts: of three rows each, or with dpo of a chosen and a rejected answer."""
    random, contexts = np.random.default_rng(SEED), []
    for context in range(2):
        shared = random.integers(5, 250, 40 + 7 * context).tolist()
        rows = []
        for row in range(2 if case.loss == "dpo" else 3):
            # Pairs share their question; questions of a context begin differently.
            question = [9, 9] if case.loss == "dpo" else [10 + row, 9]
            answer = random.integers(5, 250, 4 + 3 * row).tolist()
            weights = [0.5, *[2.0] * (len(answer) - 1)] if case.loss == "raft" else ()
            start = len(shared) + len(question)
            rows.append(Row([*shared, *question, *answer], start, weights))
        contexts.append(rows)
    return contexts


def start_of(case: Case, model: nn.Module) -> dict[str, mx.array]:
    """Put adapters on the model; A₀ and B₀."""
    config = AdapterConfig("tiny", case.init, RANK, ALPHA, case.bits, 32, [])
    settings = StartSettings(SEED, "exact", 2)
    _, taken = start_adapters(model, config, targets=TARGETS, layers=0, settings=settings)
    return taken


def by_forge(case: Case) -> list[float]:
    """Losses of each step by the train stage's parts."""
    attention.install()
    model = make_model(case.model)
    start_of(case, model)
    batches: list[Batch] = []
    for number, rows in enumerate(make_rows(case)):
        batch = as_batch(group_rows(rows), [f"{number}-{row}" for row in range(len(rows))])
        if case.loss == "dpo":
            pair = Pair(batch.data, mx.array(log_probabilities(model, batch.data)))
            batch = Batch(pair, batch.ids, batch.tokens, batch.supervised, batch.length)
        batches.append(batch)
    loss: Loss = (lambda m, pair: pair_loss(m, pair, BETA)) if case.loss == "dpo" else group_loss
    stepper = Stepper(model, loss, make_optimiser("adamw", model, weight_decay=0.01), clip=CLIP)
    return [stepper.step(batches, step, RATE).loss for step in range(STEPS)]


def by_plain_means(case: Case) -> list[float]:
    """The same without Forge's losses, steps, residuals or optimiser; see above."""
    model, started = make_model(case.model), make_model(case.model)
    start_of(case, started)
    scale = ALPHA / RANK
    trained, residual = {}, {}
    for path in {name.rpartition(".")[0] for name in adapter_arrays(started)}:
        weight = np.array(get_module(model, path).weight, np.float64)
        A, B = (np.array(get_module(started, path)[leaf], np.float64) for leaf in "AB")
        if case.init == "pissa":
            U, S, V = np.linalg.svd(weight)
            root = np.sqrt(S[:RANK] / scale)
            A, B = root[:, None] * V[:RANK], U[:, :RANK] * root
            weight = weight - scale * B @ A
        trained |= {f"{path}.A": A, f"{path}.B": B}
        residual[path] = mx.array(weight.astype(np.float32))
    total = _plain_loss(case, model, residual, scale)
    moments = {name: (np.zeros_like(v), np.zeros_like(v)) for name, v in trained.items()}
    losses = []
    for step in range(1, STEPS + 1):
        arrays = {name: mx.array(v.astype(np.float32)) for name, v in trained.items()}
        (loss, count), found = mx.value_and_grad(total)(arrays)
        gradients = {k: np.array(v, np.float64) / count for k, v in found.items()}
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        for name, gradient in gradients.items():
            g = gradient * min(1.0, CLIP / (norm + 1e-6))
            m, v = moments[name]
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            moments[name] = m, v
            change = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
            trained[name] = trained[name] * (1 - RATE * 0.01) - RATE * change
        losses.append(loss.item() / count)
    return losses


def _plain_loss(
    case: Case, model: nn.Module, residual: dict[str, mx.array], scale: float
) -> Callable[[dict[str, mx.array]], tuple[mx.array, float]]:
    contexts = make_rows(case)

    def token_losses(row: Row) -> mx.array:
        logits = model(mx.array([row.ids[:-1]]))[0, row.start - 1 :]
        return nn.losses.cross_entropy(logits, mx.array(row.ids[row.start :]))

    reference = [[-token_losses(row).sum() for row in rows] for rows in contexts]
    if case.loss == "dpo":
        mx.eval(reference)

    def total(arrays: dict[str, mx.array]) -> tuple[mx.array, float]:
        weights = {
            f"{path}.weight": base + scale * arrays[f"{path}.B"] @ arrays[f"{path}.A"]
            for path, base in residual.items()
        }
        model.update(tree_unflatten(list(weights.items())))
        if case.loss == "dpo":
            sums, count = mx.array(0.0), 0.0
            for rows, known in zip(contexts, reference, strict=True):
                gained = [-token_losses(r).sum() - k for r, k in zip(rows, known, strict=True)]
                sums = sums - mx.log(mx.sigmoid(BETA * (gained[0] - gained[1])))
                count += 1
            return sums, count
        sums, count = mx.array(0.0), 0.0
        for row in (row for rows in contexts for row in rows):
            weight = mx.array(row.weights or [1.0] * row.supervised)
            sums, count = sums + (token_losses(row) * weight).sum(), count + weight.sum().item()
        return sums, count

    return total


def main() -> None:
    """Write the file, where both ways agree to 1e-4."""
    # Before Forge's attention and activations take MLX's places.
    plain = {case.name: by_plain_means(case) for case in CASES if case.has_plain}
    found = {}
    for case in CASES:
        own = by_forge(case)
        found[case.name] = {"forge": own}
        if case.has_plain:
            found[case.name]["plain"] = plain[case.name]
            apart = max(abs(a / b - 1) for a, b in zip(own, plain[case.name], strict=True))
            print(f"{case.name}: {apart:.1e} apart")
            if apart > 1e-4:
                sys.exit(f"{case.name}: {own} and {plain[case.name]} differ")
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
