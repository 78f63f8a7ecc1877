"""What each GGUF type costs and keeps: size, likeness to the model, and how fast it is written.

python benchmarks/quants.py [TYPE ...]

SmolLM2-135M in float32, written as each type. Likeness, by llama.cpp, over held rows of the
standard library's `asyncio`: share of positions whose likeliest token is the same, mean KL in nats,
and the perplexity of the rows' prompts over that by the model itself.
Speed: millions of weights a second of Forge's quantising (libgguf, in threads), and of llama.cpp's
own quantiser over the same F32 file with as many threads, in one run, in turn; the median of three.
"""

from __future__ import annotations

import math
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from forge_cli import mine, raft
from forge_cli.export.gguf import QUANTS, write_gguf
from forge_cli.export.merge import merged_weights
from forge_cli.export.parity import divergence, next_losses
from forge_cli.models.backend import mx
from forge_cli.models.chat import prompt_ids
from forge_cli.models.llamacpp import LlamaCpp, quantise
from forge_cli.models.load import load_dense

ROUNDS, POSITIONS = 3, 2000


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    """A line for each type."""
    loaded = load_dense("smollm2-135m")
    tree = Path(sysconfig.get_paths()["stdlib"]) / "asyncio"
    rows = raft.run(mine.run(tree, max_chars=900), distractors=2, questions=1)
    prompts, logits = [], []
    for row in rows:
        ids = prompt_ids(loaded.tokenizer, row.messages)
        prompts.append(ids)
        logits.append(np.array(loaded.model(mx.array([ids]))[0].astype(mx.float32)))
        if sum(map(len, prompts)) >= POSITIONS:
            break
    weights = merged_weights(loaded.model)
    count = sum(int(np.prod(weight.shape)) for weight in weights.values())
    print(f"{count / 1e6:.0f} million weights, {sum(map(len, prompts))} positions")
    likenesses = f"{'top-1':>9}{'mean KL':>10}{'perplexity':>12}"
    print(f"{'type':8}{'MB':>6}{likenesses}{'Mw/s':>7}{'llama.cpp':>11}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def write(quant: str) -> Path:
            return write_gguf(
                folder / f"{quant}.gguf", config=loaded.config, tokenizer_dir=loaded.path,
                weights=weights, quant=quant, name="smollm2",
            )  # fmt: skip

        plain = write("f32")
        for quant in sys.argv[1:] or [q for q in QUANTS if q != "f32"]:
            ours, theirs = [], []
            for _ in range(ROUNDS):
                ours.append(timed(lambda quant=quant: write(quant)))
                target = folder / "theirs.gguf"
                number = QUANTS[quant].file_type
                theirs.append(timed(lambda t=target, n=number: quantise(plain, t, n)))
            size, top1, kl, worse = likeness(folder / f"{quant}.gguf", prompts, logits)
            ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
            speeds = [count / 1e6 / statistics.median(taken) for taken in (ours, theirs)]
            print(f"{quant:8}{size:6.0f}{top1:9.2%}{kl:10.2g}{worse:12.4f}{speeds[0]:7.0f}"
                  f"{speeds[1]:11.0f}{ratio:7.2f}", flush=True)  # fmt: skip


def likeness(
    file: Path, prompts: list[list[int]], logits: list[np.ndarray]
) -> tuple[float, float, float, float]:
    """Megabytes, share of equal tokens, mean KL, perplexity over the model's."""
    kl, same, worse = [], [], []
    with LlamaCpp(file, max(map(len, prompts))) as llama:
        for ids, ours in zip(prompts, logits, strict=True):
            theirs = llama.logits(ids)
            apart, equal = divergence(ours, theirs)
            kl.append(apart)
            same.append(equal)
            worse.append(next_losses(theirs, ids) - next_losses(ours, ids))
    means = [float(np.concatenate(found).mean()) for found in (same, kl, worse)]
    return file.stat().st_size / 1e6, means[0], means[1], math.exp(means[2])


if __name__ == "__main__":
    main()
