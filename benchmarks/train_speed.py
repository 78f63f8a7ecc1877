"""A training step beside mlx-lm's and PEFT's: same rows, adapters, optimiser and BLAS.

python benchmarks/train_speed.py [ROUNDS] [--slow]

SmolLM2-135M in float32, LoRA of rank 8 on all linear layers of the last 16 blocks, AdamW. The
rows are RAFT rows of the standard library's `email` package: contexts of four documents with five
questions each, one context a step. Each side is a process of its own; rounds run in turn. The
first step of a process is not counted (where one takes minutes, it is). Printed: supervised tokens
a second, how often more that is for Forge (median of the rounds' ratios), peak memory, and
model-FLOP utilisation: the FLOPs that the step needs on rows without padding (PaLM, arXiv
2204.02311, appendix B: nothing computed again counts), over those of the fastest float32 GEMM of
the same round in the same time.

`forge, checkpointed` computes activations again backwards (`gradient_checkpointing`), and
`forge, rows apart` does not share the context of the rows. mlx-lm pads to 1 + 32k and runs its
head on every position (`tuner.trainer.default_loss`); `4-bit`, with --slow, is its QLoRA on a
base of 4 bits, one step. `unsloth_zoo` is the loss of Unsloth's MLX trainer (the head in chunks, on
supervised positions) over the same LoRA layers; its package is fetched without its dependencies.
mx.compile is off on all sides: on the CPU it needs a C++ compiler.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL, RANK, LAYERS, QUESTIONS, CONTEXTS = "smollm2-135m", 8, 16, 5, 2
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SIDES = ["forge", "forge, checkpointed", "forge, rows apart", "mlx-lm", "unsloth_zoo"]
SIDES += ["torch + PEFT"]
SLOW = ["mlx-lm, 4-bit"]  # minutes a step: one round, one step
TIMEOUT = 1800


def make_rows(file: Path) -> None:
    """Write the contexts: {"ids", "start", "prefix"} of each row, the model's directory, sizes."""
    from forge_cli import mine, raft, validate
    from forge_cli.models.chat import tokenise
    from forge_cli.models.load import load_tokenizer
    from forge_cli.models.resolve import resolve

    tree = Path(sysconfig.get_paths()["stdlib"]) / "email"
    made = validate.run(raft.run(mine.run(tree)), model=MODEL)
    path = resolve(MODEL)
    tokenizer = load_tokenizer(path)
    contexts: dict[str, list[Any]] = {}
    for example in made:
        contexts.setdefault(example.context_id, []).append(tokenise(tokenizer, example.messages))
    full = [rows[:QUESTIONS] for rows in contexts.values() if len(rows) >= QUESTIONS]
    full.sort(key=lambda rows: max(len(row.ids) for row in rows))
    middle = len(full) // 2  # contexts of the usual length
    chosen = full[middle : middle + CONTEXTS]
    rows = [[{"ids": row.ids, "start": row.start} for row in rows] for rows in chosen]
    file.write_text(json.dumps({"model": str(path), "contexts": rows}))


def timed(steps: list[Callable[[], None]]) -> list[float]:
    """Seconds of each."""
    seconds = []
    for step in steps:
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds


def forge(data: dict[str, Any], *, apart: bool, checkpointed: bool) -> tuple[list[float], float]:
    """Forge's step, on shared contexts or on each row alone."""
    from forge_cli.models.adapters import AdapterConfig
    from forge_cli.models.backend import mx, nn
    from forge_cli.models.load import load_dense
    from forge_cli.models.shared_context import Row, group_rows, token_losses
    from forge_cli.train.gradient_checkpointing import checkpoint_blocks
    from forge_cli.train.initial import start_adapters

    loaded = load_dense(MODEL)
    config = AdapterConfig(
        model=MODEL, init="lora", rank=RANK, alpha=RANK, bits=16, group_size=64, modules=[]
    )
    start_adapters(loaded.model, config, targets=TARGETS, layers=LAYERS, seed=0)
    if checkpointed:
        checkpoint_blocks(loaded.model)
    loaded.model.train()
    groups = []
    for context in data["contexts"]:
        rows = [Row(row["ids"], row["start"]) for row in context]
        groups.append([group_rows([row]) for row in rows] if apart else [group_rows(rows)])
    work = nn.value_and_grad(loaded.model, lambda model, g: token_losses(model, g).sum())
    return _mlx_steps(mx, loaded.model, groups, lambda model, group: work(model, group)[1])


def mlx_lm(data: dict[str, Any], bits: int) -> tuple[list[float], float]:
    """mlx-lm's loss and padding."""
    from forge_cli.models.blas import preload_blas

    preload_blas()
    import mlx.core as mx
    import mlx.nn as nn
    import numpy as np
    from mlx_lm.tuner.trainer import default_loss, iterate_batches

    model = _lora_model(data, bits)
    work = nn.value_and_grad(model, default_loss)
    batches = []
    for context in data["contexts"]:
        dataset = [(row["ids"], row["start"]) for row in context]
        batches.append(next(iter(iterate_batches(dataset, len(dataset), 4096))))
    np.random.seed(0)
    groups = [[batch] for batch in batches]
    return _mlx_steps(
        mx, model, groups, lambda model, batch: work(model, *batch)[1], warm=bits == 16
    )


def unsloth(data: dict[str, Any]) -> tuple[list[float], float]:
    """The loss of Unsloth's MLX trainer, `make_cce_loss_fn`, on mlx-lm's LoRA layers."""
    from forge_cli.core.places import cache_dir
    from forge_cli.models.blas import preload_blas

    folder = cache_dir() / "unsloth_zoo"
    if not (folder / "unsloth_zoo").is_dir():
        install = ["uv", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
        subprocess.run([*install, "unsloth_zoo"], check=True)
    preload_blas()
    # Its own __init__ wants torch and a GPU.
    package = types.ModuleType("unsloth_zoo")
    package.__path__ = [str(folder / "unsloth_zoo")]
    sys.modules["unsloth_zoo"] = package
    import mlx.core as mx
    import mlx.nn as nn
    import numpy as np

    with contextlib.redirect_stdout(sys.stderr):
        from unsloth_zoo.mlx.utils import make_cce_loss_fn

        model = _lora_model(data, 16)
        loss = make_cce_loss_fn(model)
    work = nn.value_and_grad(model, loss)
    groups = []
    for context in data["contexts"]:
        width = 1 + 32 * ((max(len(row["ids"]) for row in context) + 31) // 32)
        ids = np.zeros((len(context), width), np.int32)
        labels = np.full((len(context), width), -100, np.int32)
        for at, row in enumerate(context):
            length = len(row["ids"])
            ids[at, :length] = row["ids"]
            labels[at, row["start"] : length] = row["ids"][row["start"] :]
        # As its trainer compacts them: supervised positions laid flat, filled up to 256s.
        chosen = np.flatnonzero(labels[:, 1:] != -100)
        positions = np.full(-(-len(chosen) // 256) * 256, -1, np.int32)
        positions[: len(chosen)] = chosen
        lengths = [[1, len(row["ids"])] for row in context]
        arrays = [mx.array(a) for a in (ids, lengths, labels, positions)]
        groups.append([tuple(arrays)])
    return _mlx_steps(mx, model, groups, lambda model, batch: work(model, *batch)[1])


def _lora_model(data: dict[str, Any], bits: int) -> Any:
    """mlx-lm's model with its LoRA layers."""
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    mx.disable_compile()
    model, _ = load_model(Path(data["model"]))
    model.set_dtype(mx.float32)
    if bits != 16:
        nn.quantize(model, group_size=64, bits=bits)
    model.freeze()
    keys = [f"self_attn.{t}" for t in TARGETS[:4]] + [f"mlp.{t}" for t in TARGETS[4:]]
    settings = {"rank": RANK, "scale": 1.0, "dropout": 0.0, "keys": keys}
    linear_to_lora_layers(model, LAYERS, settings)
    return model


def _mlx_steps(
    mx: Any, model: Any, groups: list[list[Any]], gradients: Any, *, warm: bool = True
) -> Any:
    import mlx.optimizers as optim
    from mlx.utils import tree_map

    optimiser = optim.AdamW(learning_rate=1e-4)
    mx.eval(model.parameters())

    def step(parts: list[Any]) -> None:
        total = None
        for part in parts:
            found = gradients(model, part)
            total = found if total is None else tree_map(mx.add, total, found)
            mx.eval(total)
        optimiser.update(model, total)
        mx.eval(model.parameters(), optimiser.state)

    if warm:
        step(groups[0])
    mx.reset_peak_memory()
    seconds = timed([lambda parts=parts: step(parts) for parts in groups])  # type: ignore[misc]
    return seconds, mx.get_peak_memory() / 1e9


def torch_peft(data: dict[str, Any]) -> tuple[list[float], float]:
    """transformers and PEFT, rows padded to the longest."""
    import resource

    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(data["model"], dtype=torch.float32)
    last = range(base.config.num_hidden_layers - LAYERS, base.config.num_hidden_layers)
    model = get_peft_model(
        base,
        LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS, layers_to_transform=list(last)),
    )
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-4)

    def batch(context: list[dict[str, Any]]) -> dict[str, Any]:
        width = max(len(row["ids"]) for row in context)
        ids = torch.zeros((len(context), width), dtype=torch.long)
        labels = torch.full_like(ids, -100)
        seen = torch.zeros_like(ids)
        for at, row in enumerate(context):
            length = len(row["ids"])
            ids[at, :length] = torch.tensor(row["ids"])
            labels[at, row["start"] : length] = ids[at, row["start"] : length]
            seen[at, :length] = 1
        return {"input_ids": ids, "labels": labels, "attention_mask": seen}

    def step(inputs: dict[str, Any]) -> None:
        model(**inputs).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    batches = [batch(context) for context in data["contexts"]]
    step(batches[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = timed([lambda inputs=inputs: step(inputs) for inputs in batches])  # type: ignore[misc]
    return seconds, max(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1e6


def run_side(side: str, file: Path) -> None:
    """One side, in this process: prints its seconds and peak as JSON."""
    data = json.loads(file.read_text())
    if side in SLOW:
        data["contexts"] = data["contexts"][:1]
    works: dict[str, Callable[[], tuple[list[float], float]]] = {
        "forge": lambda: forge(data, apart=False, checkpointed=False),
        "forge, checkpointed": lambda: forge(data, apart=False, checkpointed=True),
        "forge, rows apart": lambda: forge(data, apart=True, checkpointed=False),
        "mlx-lm": lambda: mlx_lm(data, 16),
        "mlx-lm, 4-bit": lambda: mlx_lm(data, 4),
        "unsloth_zoo": lambda: unsloth(data),
        "torch + PEFT": lambda: torch_peft(data),
    }
    seconds, peak = works[side]()
    supervised = sum(len(r["ids"]) - r["start"] for c in data["contexts"] for r in c)
    shared = side in ("forge", "forge, checkpointed")
    needed = sum(model_flops(Path(data["model"]), c, shared=shared) for c in data["contexts"])
    found = {"rate": supervised / sum(seconds), "peak": peak, "flops": needed / sum(seconds)}
    print(json.dumps(found))


def model_flops(folder: Path, context: list[dict[str, Any]], *, shared: bool) -> float:
    """Multiplications and additions of one step on a context's rows, none of them padded.

    Linear layers forwards, and their inputs' gradients from the first block with adapters on (the
    frozen weights have none); the adapters, both ways and their own gradients; scores and values of
    causal attention, forwards and 2.5 times backwards; the head on supervised positions, both ways.
    """
    from forge_cli.models.shapes import read_shapes

    shapes = read_shapes(folder)
    assert shapes is not None
    rows = [len(row["ids"]) - 1 for row in context]
    first = [row["ids"] for row in context]
    prefix = 0
    while shared and len({tuple(ids[: prefix + 1]) for ids in first}) == 1:
        prefix += 1
    tokens = prefix + sum(row - prefix for row in rows)
    pairs = prefix**2 / 2 + sum((row - prefix) * (row + prefix) / 2 for row in rows)
    linear = sum(out * into for out, into in shapes.linears.values())
    adapters = RANK * sum(out + into for out, into in shapes.linears.values())
    attention = 4 * shapes.heads * shapes.head_dim * pairs
    supervised = sum(len(row["ids"]) - row["start"] for row in context)
    return (
        2 * linear * tokens * (shapes.layers + LAYERS)
        + 6 * adapters * tokens * LAYERS
        + attention * (shapes.layers + 2.5 * LAYERS)
        + 4 * shapes.hidden * shapes.vocabulary * supervised
    )


def gemm_peak() -> float:
    """FLOP/s of the fastest of some float32 GEMMs."""
    from forge_cli.models.backend import mx

    best = 0.0
    for rows, inner, columns in ((1024, 576, 1536), (1024, 1536, 576), (2048, 2048, 2048)):
        a, b = mx.random.normal((rows, inner)), mx.random.normal((inner, columns))
        mx.eval(a, b)
        for _ in range(8):
            started = time.perf_counter()
            mx.eval(a @ b)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - started))
    return best


def measure(side: str, file: Path) -> dict[str, float] | None:
    """One side in a process of its own; None where it is missing or takes too long."""
    command = [sys.executable, __file__, "--side", side, str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        print(f"{side}: stopped after {TIMEOUT} s", file=sys.stderr)
        return None
    if done.returncode:
        print(f"{side}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--side"]:
        if sys.argv[2] == "gemm":
            print(json.dumps({"flops": gemm_peak()}))
        else:
            run_side(sys.argv[2], Path(sys.argv[3]))
        return
    rounds = next((int(word) for word in sys.argv[1:] if word.isdigit()), 2)
    slow = SLOW if "--slow" in sys.argv else []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        make_rows(file)
        found: dict[str, list[dict[str, float] | None]] = {}
        for number in range(rounds):
            found.setdefault("gemm", []).append(measure("gemm", file))
            for side in SIDES + (slow if number == 0 else []):
                result = measure(side, file)
                print(f"round {number + 1}, {side}: {result}", file=sys.stderr)
                found.setdefault(side, []).append(result)
    own, gemm = found["forge"], found.pop("gemm")
    peaks = [result["flops"] for result in gemm if result]
    print(f"GEMM peak {statistics.median(peaks) / 1e9:.0f} GFLOP/s")
    heads = f"{'supervised tokens/s':>22}{'Forge is faster by':>20}{'peak GB':>10}{'MFU':>8}"
    print(f"{'':20}{heads}")
    for side, results in found.items():
        pairs = [(a, b) for a, b in zip(own, results, strict=False) if a and b]
        if not pairs:
            print(f"{side:20}{'not run, or too slow':>22}")
            continue
        rate = statistics.median(b["rate"] for _, b in pairs)
        ratio = statistics.median(a["rate"] / b["rate"] for a, b in pairs)
        peak = statistics.median(b["peak"] for _, b in pairs)
        shares = [b["flops"] / g["flops"] for b, g in zip(results, gemm, strict=False) if b and g]
        mfu = statistics.median(shares)
        print(f"{side:20}{rate:22.2f}{ratio:19.1f}x{peak:10.2f}{mfu:8.2f}")


if __name__ == "__main__":
    main()
