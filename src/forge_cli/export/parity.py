"""The exported file against the trained model: same tokens, same next words.

The file is loaded in real llama.cpp and both models read the same held-out prompts;
the distance is KL(MLX ‖ GGUF) over the whole vocabulary at every position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.models.llamacpp import LlamaCpp

_ROWS = 64  # positions compared at once: float64 over the vocabulary, several copies


@dataclass(frozen=True)
class Threshold:
    """What a file of one type must reach."""

    top1_agreement: float  # share of positions, at least
    mean_kl: float  # nats, at most


# Beside each: SmolLM2-135M-Instruct, 2,621 positions, against MLX (benchmarks/quants.py).
# A model this small loses more to a type than a larger one.
THRESHOLDS = {
    "f32": Threshold(0.99, 1e-3),
    "f16": Threshold(0.99, 1e-3),  # 99.8 %, 2e-6
    "bf16": Threshold(0.98, 2e-3),  # 99.4 %, 1.5e-4
    "q8_0": Threshold(0.93, 0.02),  # 96.0 %, 4.5e-3
    "q6_k": Threshold(0.92, 0.03),  # 96.0 %, 9.4e-3
    "q5_k_m": Threshold(0.80, 0.16),  # 87.8 %, 0.073
    "q5_k_s": Threshold(0.80, 0.16),  # 88.2 %, 0.082
    "q4_k_m": Threshold(0.80, 0.15),  # 89.5 %, 0.062
    "q4_k_s": Threshold(0.80, 0.16),  # 87.3 %, 0.072
    "q4_0": Threshold(0.68, 0.55),  # 76.2 %, 0.27
    "iq4_nl": Threshold(0.74, 0.38),  # 82.5 %, 0.19
    "iq4_xs": Threshold(0.74, 0.38),  # 82.2 %, 0.18
    # Without experts it is Q8_0; their part is in 4 bits.
    "mxfp4": Threshold(0.70, 0.50),  # 96.0 %, 4.5e-3
    "q3_k_l": Threshold(0.74, 0.30),  # 83.0 %, 0.15
    "q3_k_m": Threshold(0.74, 0.30),  # 82.7 %, 0.13
    "q3_k_s": Threshold(0.64, 0.85),  # 72.8 %, 0.42
}


@dataclass(frozen=True)
class Probe:
    """A held-out prompt: its text, its token ids, and the trained model's logits [T, vocab]."""

    text: str
    ids: list[int]
    logits: np.ndarray


@dataclass(frozen=True)
class ParityResult:
    """How near an exported file is to the model that was trained."""

    quant: str
    positions: int
    tokens_equal: bool
    top1_agreement: float
    mean_kl: float
    max_kl: float
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        return not self.failures


def compare(
    gguf: Path,
    *,
    mlx_logits: Callable[[list[int]], np.ndarray],
    prompts: Sequence[tuple[str, list[int]]],
    quant: str,
    reporter: Reporter = SILENT,
) -> ParityResult:
    """Compare an exported file with the model it was made from.

    Args:
        mlx_logits: token ids [T] → logits float [T, vocab] of the trained model.
        prompts: rendered text, and the token ids that training used for it.
        quant: the file's type, a key of `THRESHOLDS`.

    Raises:
        UsageError: an unknown `quant`. ForgeError: no prompts, or llama.cpp is missing or
            refuses the file. A file that is merely unlike the model is no error: see
            `ParityResult.failures`.
    """
    if quant not in THRESHOLDS:
        raise UsageError(f"{quant}: unknown type", f"known: {', '.join(THRESHOLDS)}")
    prompts = [(text, ids) for text, ids in prompts if ids]
    if not prompts:
        raise ForgeError(f"{gguf}: no held-out text to check it with", "give at least one prompt")
    failures: list[str] = []
    tokens_equal = True
    kl: list[np.ndarray] = []
    same: list[np.ndarray] = []
    with (
        LlamaCpp(gguf, max(len(ids) for _, ids in prompts)) as llama,
        reporter.task("parity with llama.cpp", len(prompts)) as task,
    ):
        for number, (text, ids) in enumerate(prompts, 1):
            if difference := _token_difference(llama.tokenize(text, False, True), ids):
                tokens_equal = False
                failures.append(f"prompt {number}: {difference}")
            ours = np.asarray(mlx_logits(ids))
            _check_shape(ours, len(ids), llama.n_vocab, gguf)
            prompt_kl, prompt_same = divergence(ours, llama.logits(ids))
            kl.append(prompt_kl)
            same.append(prompt_same)
            task.advance()
    all_kl, all_same = np.concatenate(kl), np.concatenate(same)
    figures = float(all_same.mean()), float(all_kl.mean()), float(all_kl.max())
    failures += _over(THRESHOLDS[quant], quant, *figures[:2])
    return ParityResult(quant, len(all_kl), tokens_equal, *figures, failures)


def _check_shape(ours: np.ndarray, positions: int, vocab: int, gguf: Path) -> None:
    if ours.shape != (positions, vocab):
        raise ForgeError(
            f"{gguf}: {vocab} tokens in its vocabulary, "
            f"logits of shape {ours.shape} in the trained model",
            "export it again from the trained model",
        )


def divergence(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position by position, how far two models are apart.

    Args:
        ours, theirs: logits [T, vocab].

    Returns:
        KL(ours ‖ theirs) in nats, float64 [T] (infinite where either has a value that is not
        finite), and whether the likeliest token is the same, bool [T].
    """
    kl = np.empty(len(ours))
    for start in range(0, len(ours), _ROWS):
        rows = slice(start, start + _ROWS)
        p, q = _log_softmax(ours[rows]), _log_softmax(theirs[rows])
        kl[rows] = (np.exp(p) * (p - q)).sum(axis=-1)
    # Rounding can leave a sum a hair below zero.
    kl = np.where(np.isfinite(kl), np.maximum(kl, 0.0), np.inf)
    return kl, ours.argmax(axis=-1) == theirs.argmax(axis=-1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def _token_difference(found: list[int], wanted: list[int]) -> str:
    if found == wanted:
        return ""
    shorter = min(len(found), len(wanted))
    at = next((i for i in range(shorter) if found[i] != wanted[i]), shorter)
    return (
        f"llama.cpp reads other tokens from position {at} on: "
        f"{found[at : at + 4]} instead of {wanted[at : at + 4]}"
    )


def _over(limit: Threshold, quant: str, top1: float, mean_kl: float) -> list[str]:
    failures = []
    if top1 < limit.top1_agreement:
        failures.append(
            f"the likeliest token agrees at {top1:.1%} of positions, "
            f"{quant} needs {limit.top1_agreement:.0%}"
        )
    if not mean_kl <= limit.mean_kl:
        failures.append(f"mean KL is {mean_kl:.2g} nats, {quant} allows {limit.mean_kl:g}")
    return failures
