"""What an exported directory keeps of the tuned model, by dtype and by bits.

python benchmarks/mlx_bits.py [RUN]

RUN: a run of SmolLM2-135M on the rows of `pissa_runs.py` (none: the QPiSSA run at the rate of its
best, seed 0, trained where it is not there yet: minutes). Each directory is written by `export`
and read back by mlx-lm. Likeness to the tuned model over held rows, whole chats: share of positions
whose likeliest token is the same, mean KL in nats. Kept: the share of the gain over the base in
loss on the answers of these rows, with its 95 % interval by file.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pissa_runs import MODEL, make_rows, one_run, test_rows

from forge_cli import export
from forge_cli.core.events import SILENT
from forge_cli.core.places import cache_dir
from forge_cli.evaluate.statistics.retained import retained
from forge_cli.export.parity import divergence
from forge_cli.models.adapters import load_tuned
from forge_cli.models.answer_losses import answer_losses
from forge_cli.models.backend import mx, nn
from forge_cli.models.chat import prompt_ids
from forge_cli.models.load import load_base, load_dense

# Of each: what `export` is told.
FORMS: list[tuple[str, dict[str, object]]] = [
    ("float16", {"to": ["safetensors"], "dtype": "float16"}),
    ("bfloat16", {"to": ["safetensors"], "dtype": "bfloat16"}),
    *((f"mlx, {bits} bits", {"to": ["mlx"], "mlx_bits": bits}) for bits in (8, 6, 4, 3)),
]
INIT, RATE, ROWS, POSITIONS = "qpissa", 8e-4, 20, 1500


def logits(model: nn.Module, ids: list[int]) -> np.ndarray:
    """Of one sequence, float32 [T, vocab]."""
    return np.array(model(mx.array([ids]))[0].astype(mx.float32))


def main() -> None:
    """A line for each form."""
    run = Path(sys.argv[1]) if len(sys.argv) > 1 else cache_dir() / "pissa-runs" / "qpissa-0.0008-0"
    rows = make_rows()
    if not (run / "adapters" / "adapters.safetensors").exists():
        one_run(rows, run, INIT, RATE, 0, whole=False)
    test = test_rows(rows)["seen"][:ROWS]
    chats, files = [row.messages for row in test], [row.origin.path for row in test]
    tuned = load_tuned(run / "adapters")
    probes: list[tuple[list[int], np.ndarray]] = []
    for row in test:
        ids = prompt_ids(tuned.tokenizer, row.messages)
        probes.append((ids, logits(tuned.model, ids)))
        if sum(len(ids) for ids, _ in probes) >= POSITIONS:
            break
    after = answer_losses(tuned, chats, "tuned", SILENT) or []
    base = load_base(MODEL, bits=4, group_size=64)
    before = answer_losses(base, chats, "base", SILENT) or []
    del tuned, base
    print(f"loss on the answers: base {np.mean(before):.3f}, tuned {np.mean(after):.3f}; "
          f"{sum(len(ids) for ids, _ in probes)} positions")  # fmt: skip
    print(f"{'form':14}{'MB':>5}{'top-1':>9}{'mean KL':>10}{'loss':>8}{'kept':>9}   95 % interval")
    for name, told in FORMS:
        with tempfile.TemporaryDirectory() as out:
            [folder], _ = export.run(
                adapters=run / "adapters", out=Path(out), name="x", parity=False,
                **told,  # type: ignore[arg-type]
            )  # fmt: skip
            size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
            read = load_dense(str(folder))
            top1, kl = likeness(read.model, probes)
            then = answer_losses(read, chats, name, SILENT) or []
        kept = retained(before, after, then, files, resamples=10_000, seed=0)
        assert kept
        print(f"{name:14}{size / 1e6:5.0f}{top1:9.2%}{kl:10.2g}{np.mean(then):8.3f}"
              f"{kept.share:9.1%}   [{kept.low:.1%}, {kept.high:.1%}]", flush=True)  # fmt: skip


def likeness(
    model: nn.Module, probes: Sequence[tuple[list[int], np.ndarray]]
) -> tuple[float, float]:
    """Share of equal tokens, mean KL."""
    found = [divergence(ours, logits(model, ids)) for ids, ours in probes]
    kl, same = (np.concatenate(values) for values in zip(*found, strict=True))
    return float(same.mean()), float(kl.mean())


if __name__ == "__main__":
    main()
