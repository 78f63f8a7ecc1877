"""The exported file against the trained model: same tokens, same next words.

The file is loaded in real llama.cpp and both models read the same held-out prompts;
the distance is KL(MLX ‖ GGUF) over the whole vocabulary at every position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Message
from forge_cli.models.llamacpp import LlamaCpp

# Two tokens whose logits are nearer than float16 can tell are as likely as each other: which
# of them comes first depends on the order of a sum, in a file that is exact as well.
_TIE = 2.0**-10  # of the logit
_ROWS = 64  # positions compared at once: float64 over the vocabulary, several copies


@dataclass(frozen=True)
class Threshold:
    """What a file of one type must reach."""

    top1_agreement: float  # share of positions with the same likeliest token, at least
    mean_kl: float  # nats, at most
    perplexity: float = math.inf  # of the file over that of the model, at most


# Beside each: SmolLM2-135M-Instruct, 2,621 positions, against MLX (benchmarks/quants.py).
# A model this small loses more to a type than a larger one. Of perplexity, about twice as much
# is allowed as was lost, and room for the error of some hundred positions.
THRESHOLDS = {
    "f32": Threshold(0.995, 1e-3, 1.001),
    "f16": Threshold(0.995, 1e-3, 1.001),  # 100 %, 2e-6, 1.0000
    "bf16": Threshold(0.98, 2e-3, 1.005),  # 99.5 %, 1.5e-4, 1.0001
    "q8_0": Threshold(0.93, 0.02, 1.02),  # 96.3 %, 4.5e-3, 1.0006
    "q6_k": Threshold(0.92, 0.03, 1.04),  # 96.5 %, 9.4e-3, 1.012
    "q5_k_m": Threshold(0.80, 0.16, 1.26),  # 88.1 %, 0.073, 1.12
    "q5_k_s": Threshold(0.80, 0.16, 1.28),  # 88.4 %, 0.082, 1.13
    "q4_k_m": Threshold(0.80, 0.15, 1.18),  # 90.0 %, 0.062, 1.064
    "q4_k_s": Threshold(0.80, 0.16, 1.21),  # 87.6 %, 0.072, 1.082
    "q4_0": Threshold(0.68, 0.55, 1.50),  # 76.7 %, 0.27, 1.20
    "iq4_nl": Threshold(0.74, 0.38, 1.40),  # 82.7 %, 0.19, 1.16
    "iq4_xs": Threshold(0.74, 0.38, 1.40),  # 82.4 %, 0.18, 1.17
    # Without experts it is Q8_0; their part is in 4 bits.
    "mxfp4": Threshold(0.70, 0.50, 1.50),  # 96.3 %, 4.5e-3, 1.0006
    "q3_k_l": Threshold(0.74, 0.30, 1.35),  # 83.4 %, 0.15, 1.16
    "q3_k_m": Threshold(0.74, 0.30, 1.35),  # 83.1 %, 0.13, 1.13
    "q3_k_s": Threshold(0.64, 0.85, 1.75),  # 73.0 %, 0.42, 1.30
}


@dataclass(frozen=True)
class Probe:
    """A held-out prompt: its chat, text and token ids, and the trained model's logits [T, vocab].

    Attributes:
        today: text and ids with today's date, where the template prints one.
    """

    messages: Sequence[Message]
    text: str
    ids: list[int]
    logits: np.ndarray
    today: tuple[str, list[int]] | None = None


@dataclass(frozen=True)
class ParityResult:
    """How near an exported file is to the model that was trained."""

    quant: str
    positions: int
    tokens_equal: bool
    top1_agreement: float
    mean_kl: float
    max_kl: float
    perplexity: float  # of the held-out prompts, by the file
    trained_perplexity: float
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        return not self.failures

    @property
    def perplexity_ratio(self) -> float:
        """The file's perplexity over the trained model's; below 1 it is surer of the text."""
        return self.perplexity / self.trained_perplexity


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
    losses: list[np.ndarray] = []
    with (
        LlamaCpp(gguf, max(len(ids) for _, ids in prompts)) as llama,
        reporter.task("parity with llama.cpp", len(prompts)) as task,
    ):
        for number, (text, ids) in enumerate(prompts, 1):
            if difference := token_difference(llama.tokenize(text, False, True), ids):
                tokens_equal = False
                failures.append(f"prompt {number}: {difference}")
            ours = np.asarray(mlx_logits(ids))
            _check_shape(ours, len(ids), llama.n_vocab, gguf)
            theirs = llama.logits(ids)
            prompt_kl, prompt_same = divergence(ours, theirs)
            kl.append(prompt_kl)
            same.append(prompt_same)
            losses.append(np.stack([next_losses(logits, ids) for logits in (theirs, ours)]))
            task.advance()
    all_kl, all_same = np.concatenate(kl), np.concatenate(same)
    theirs, ours = np.exp(np.concatenate(losses, axis=1).mean(axis=1))
    result = ParityResult(
        quant=quant,
        positions=len(all_kl),
        tokens_equal=tokens_equal,
        top1_agreement=float(all_same.mean()),
        mean_kl=float(all_kl.mean()),
        max_kl=float(all_kl.max()),
        perplexity=float(theirs),
        trained_perplexity=float(ours),
        failures=failures,
    )
    failures += _over(THRESHOLDS[quant], result)
    return result


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
        finite), and whether the likeliest token is the same or tied with it, bool [T].
    """
    kl = np.empty(len(ours))
    for start in range(0, len(ours), _ROWS):
        rows = slice(start, start + _ROWS)
        p, q = _log_softmax(ours[rows]), _log_softmax(theirs[rows])
        kl[rows] = (np.exp(p) * (p - q)).sum(axis=-1)
    # Rounding can leave a sum a hair below zero.
    kl = np.where(np.isfinite(kl), np.maximum(kl, 0.0), np.inf)
    best, chosen = ours.max(axis=-1), ours[np.arange(len(ours)), theirs.argmax(axis=-1)]
    return kl, best - chosen <= _TIE * np.abs(best)


def next_losses(logits: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Loss of each token by what stands before it, in nats, float64 [T - 1].

    Args:
        logits: [T, vocab], by position.
        ids: the T tokens themselves.
    """
    found = np.empty(len(ids) - 1)
    for start in range(0, len(found), _ROWS):
        end = min(start + _ROWS, len(found))
        chances = _log_softmax(logits[start:end])
        found[start:end] = -chances[np.arange(end - start), ids[start + 1 : end + 1]]
    return found


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def token_difference(found: list[int], wanted: list[int]) -> str:
    """Where two lists of token ids part; "" if they are equal."""
    if found == wanted:
        return ""
    at = parting(found, wanted)
    return (
        f"llama.cpp reads other tokens from position {at} on: "
        f"{found[at : at + 4]} instead of {wanted[at : at + 4]}"
    )


def parting(found: Sequence[object], wanted: Sequence[object]) -> int:
    """The first position at which two sequences are unlike; the shorter's end if there is none."""
    shorter = min(len(found), len(wanted))
    return next((i for i in range(shorter) if found[i] != wanted[i]), shorter)


def _over(limit: Threshold, found: ParityResult) -> list[str]:
    failures = []
    if found.top1_agreement < limit.top1_agreement:
        failures.append(
            f"the likeliest token agrees at {found.top1_agreement:.1%} of positions, "
            f"{found.quant} needs {limit.top1_agreement:.1%}"
        )
    if not found.mean_kl <= limit.mean_kl:
        failures.append(
            f"mean KL is {found.mean_kl:.2g} nats, {found.quant} allows {limit.mean_kl:g}"
        )
    if not found.perplexity_ratio <= limit.perplexity:
        failures.append(
            f"perplexity is {found.perplexity:.4g}, {found.perplexity_ratio:.4f} times the "
            f"trained model's, {found.quant} allows {limit.perplexity:g} times"
        )
    return failures
