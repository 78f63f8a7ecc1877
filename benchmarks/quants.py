"""What each GGUF type costs and keeps: size, likeness to the model, and how fast it is written.

python benchmarks/quants.py [TYPE ...]

SmolLM2-135M in float32, written as each type. Likeness, by llama.cpp, over held rows of the
standard library's `asyncio`: share of positions whose likeliest token is the same, mean KL in nats,
and the perplexity of the rows' prompts over that by the model itself.
Speed, in millions of weights a second, with as many threads as cores, all in one run, in turn; the
median of three:

- Forge: its whole writing, from the model in MLX to a file that is synced, vocabulary and all.
- llama.cpp: its own quantiser, from an F32 file that Forge wrote to a file.
- ratio: Forge / llama.cpp, of each turn.
- coding: what of Forge's is checking and coding tensors in memory; by the ggml of llama.cpp's
  wheel, which Forge takes where it is installed, and by `libgguf`, which it takes elsewhere.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gguf import GGUFReader

from forge_cli import mine, raft
from forge_cli.export.gguf import QUANTS, write_gguf
from forge_cli.export.gguf.encode import encode
from forge_cli.export.merge import merged_weights
from forge_cli.export.parity import divergence, next_losses
from forge_cli.models import ggml
from forge_cli.models.backend import mx
from forge_cli.models.chat import prompt_ids
from forge_cli.models.llamacpp import LlamaCpp
from forge_cli.models.llamacpp_quantise import quantise
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
    print(f"{count / 1e6:.0f} million weights, {sum(map(len, prompts))} positions, {load()}")
    print(f"{'':45}{'written, Mw/s':>23}{'':7}{'coding, Mw/s':>16}")
    print(f"{'type':8}{'MB':>6}{'top-1':>9}{'mean KL':>10}{'perplexity':>12}{'Forge':>12}"
          f"{'llama.cpp':>11}{'ratio':>7}{'ggml':>8}{'libgguf':>8}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def write(quant: str) -> Path:
            return write_gguf(
                folder / f"{quant}.gguf", config=loaded.config, tokenizer_dir=loaded.path,
                weights=weights, quant=quant, name="smollm2",
            )  # fmt: skip

        plain = write("f32")
        for quant in sys.argv[1:] or [q for q in QUANTS if q != "f32"]:
            ours = folder / f"{quant}.gguf"
            number = QUANTS[quant].file_type
            taken = [
                (
                    timed(lambda quant=quant: write(quant)),
                    timed(lambda n=number: quantise(plain, folder / "theirs.gguf", n)),
                    coding(plain, ours, ggml.of_llama_cpp()),
                    coding(plain, ours, ggml.of_libgguf()),
                )
                for _ in range(ROUNDS)
            ]
            forge, llama, *codes = (
                count / 1e6 / statistics.median(t) for t in zip(*taken, strict=True)
            )
            ratio = statistics.median(theirs / own for own, theirs, *_ in taken)
            size, top1, kl, worse = likeness(ours, prompts, logits)
            print(f"{quant:8}{size:6.0f}{top1:9.2%}{kl:10.2g}{worse:12.4f}{forge:12.0f}{llama:11.0f}"
                  f"{ratio:7.2f}{codes[0]:8.0f}{codes[1]:8.0f}", flush=True)  # fmt: skip
    print(load())


def load() -> str:
    """What else this machine does: a number above that of its cores is a shared one."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def coding(plain: Path, coded: Path, code: ggml.Coder) -> float:
    """Seconds to check and code the tensors of `plain` as those of `coded` are, in memory."""
    values = {tensor.name: np.array(tensor.data) for tensor in GGUFReader(plain).tensors}
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(coded).tensors}

    def work() -> None:
        for name, kind in kinds.items():
            encode(values[name], kind, name, threads, code=code)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return timed(work)


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
