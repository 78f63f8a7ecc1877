"""What an importance matrix of training rows does for a GGUF type: mean KL on rows of other files.

python benchmarks/importance.py [TYPE ...]

SmolLM2-135M in float32 and rows of the standard library's `asyncio`: the matrix is of rows of one
half of its files, whole chats; mean KL to MLX, in nats, and the share of positions with the same
likeliest token are over prompts of the other half. Change: mean KL with the matrix less mean KL
without, mean over rows with its 95 % interval; better: rows whose mean KL is smaller.
"""

from __future__ import annotations

import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

from forge_cli import mine, raft
from forge_cli.core.records import Example
from forge_cli.evaluate import spread
from forge_cli.export.activations import mean_squares
from forge_cli.export.gguf import Importance, write_gguf
from forge_cli.export.merge import merged_weights
from forge_cli.export.parity import divergence
from forge_cli.models.backend import mx
from forge_cli.models.chat import prompt_ids, tokenise
from forge_cli.models.llamacpp import LlamaCpp
from forge_cli.models.load import load_dense

HELD, CALIBRATION = 8, (16,)
TYPES = ("q4_k_m", "iq4_xs", "q3_k_m")


def main() -> None:
    """A line for each type and size of the matrix."""
    loaded = load_dense("smollm2-135m")
    tree = Path(sysconfig.get_paths()["stdlib"]) / "asyncio"
    halves: list[list[Example]] = [[], []]
    files: list[str] = []
    for row in raft.run(mine.run(tree, max_chars=900), distractors=2, questions=1):
        for path in [document.path for document in row.documents if document.oracle][:1]:
            if path not in files:
                files.append(path)
            halves[files.index(path) % 2].append(row)
    held = [prompt_ids(loaded.tokenizer, r.messages) for r in spread(halves[1], HELD, 0)]
    logits = [np.array(loaded.model(mx.array([ids]))[0].astype(mx.float32)) for ids in held]
    texts = [
        tokenise(loaded.tokenizer, r.messages).ids for r in spread(halves[0], max(CALIBRATION), 0)
    ]
    found = {
        n: Importance(mean_squares(loaded.model, texts[:n]), n, "rows of asyncio")
        for n in CALIBRATION
    }
    weights = merged_weights(loaded.model)
    told = ", ".join(f"{n} rows of {sum(map(len, texts[:n]))} tokens" for n in CALIBRATION)
    print(f"matrix of {told}; held: {len(held)} rows, {sum(map(len, held))} positions")
    print(f"{'type':8}{'rows':>6}{'MB':>7}{'top-1':>9}{'mean KL':>9}   change{'':18}better")
    with tempfile.TemporaryDirectory() as name:
        for quant in sys.argv[1:] or TYPES:
            before: np.ndarray | None = None
            for count in (0, *CALIBRATION):
                file = write_gguf(
                    Path(name) / f"{quant}.gguf", config=loaded.config, quant=quant,
                    tokenizer_dir=loaded.path, weights=weights, name="smollm2",
                    importance=found.get(count),
                )  # fmt: skip
                kl, top1 = likeness(file, held, logits)
                line = f"{quant:8}{count or '-':>6}{file.stat().st_size / 1e6:7.1f}"
                line += f"{top1:9.2%}{kl.mean():9.4f}"
                if before is None:
                    before = kl
                else:
                    change = kl - before
                    half = 1.96 * change.std(ddof=1) / len(change) ** 0.5
                    low, high = change.mean() - half, change.mean() + half
                    line += f"   {change.mean():+.4f} [{low:+.4f}, {high:+.4f}]"
                    line += f"  {(change < 0).sum()} of {len(change)}"
                print(line, flush=True)


def likeness(
    file: Path, prompts: list[list[int]], logits: list[np.ndarray]
) -> tuple[np.ndarray, float]:
    """Mean KL of each row, share of equal tokens over all."""
    kl, same = [], []
    with LlamaCpp(file, max(map(len, prompts))) as llama:
        for ids, ours in zip(prompts, logits, strict=True):
            apart, equal = divergence(ours, llama.logits(ids))
            kl.append(float(apart.mean()))
            same.append(equal)
    return np.array(kl), float(np.concatenate(same).mean())


if __name__ == "__main__":
    main()
