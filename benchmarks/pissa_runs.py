"""Train with each init and learning rate, and keep what came out: hours, taken up where it stopped.

python benchmarks/pissa_runs.py [WORK] [INIT ...]

WORK: where runs are trained (none: the cache). Processes with different inits can run at once.
Appends a line a run to pissa_runs.jsonl, which `benchmarks/pissa.py` reads. What is alike in all
runs: SmolLM2-135M, 4 bits in groups of 64, rank 16 (alpha 16) on all linear layers of the last 16
blocks, AdamW, cosine with 5 % warm-up, no decay, and for each seed the same contexts in the same
order. Rows: the standard library's `asyncio`, split by file. Kinds `UNSEEN` are taken out of
training, so that what is learned of the answers' form alone does not count for them.

First every init at some rates with seed 0; the rate with the least validation loss is an init's
best. Then that with all seeds: of these runs answers are generated too, and the export as Q4_K_M
is read by llama.cpp. Where the best lies at the end of the grid, the grid grows, and so on.
"""

from __future__ import annotations

import json
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from forge_cli import evaluate, export, mine, raft, train, validate
from forge_cli.core.events import SILENT
from forge_cli.core.places import cache_dir
from forge_cli.core.records import Example
from forge_cli.evaluate.generation import Continuation, generate
from forge_cli.evaluate.metrics import score
from forge_cli.models.adapters import load_tuned
from forge_cli.models.answer_losses import answer_losses
from forge_cli.models.backend import mx
from forge_cli.models.chat import prompt_ids, tokenise
from forge_cli.models.llamacpp import LlamaCpp
from forge_cli.models.load import Loaded
from forge_cli.train.callbacks.metrics import read_rows

RUNS = Path(__file__).parent / "pissa_runs.jsonl"
MODEL, RANK, LAYERS, STEPS, VALID_EVERY, VALID_ROWS = "smollm2-135m", 16, 16, 40, 5, 16
# PiSSA on a quantised base is QPiSSA with T = 1; the other two alternate T = 5 times.
INITS, ALTERNATIONS = ["lora", "loftq", "pissa", "qpissa"], 5
RATES, FACTOR = [1e-4, 2e-4, 4e-4, 8e-4], 2
# These begin at the rate that suits the other best; each grid grows from there.
LIKE = {"loftq": "lora", "qpissa": "pissa"}
SEEDS = [0, 1, 2]
UNSEEN = {"raises", "default", "callers"}
TEST_ROWS, ANSWER_ROWS, ANSWER_TOKENS = 80, 24, 160


def make_rows() -> list[Example]:
    """The rows of asyncio, split by file; those of `UNSEEN` kinds only to test on."""
    tree = Path(sysconfig.get_paths()["stdlib"]) / "asyncio"
    rows = raft.run(mine.run(tree, max_chars=900), distractors=2, questions=5)
    sound = validate.run(rows, model=MODEL, max_tokens=1024)
    return [row for row in sound if row.split == "test" or row.origin.kind not in UNSEEN]


def test_rows(rows: Sequence[Example]) -> dict[str, list[Example]]:
    """Of kinds that were trained on, and of kinds that were not; spread over the files."""
    test = [row for row in rows if row.split == "test"]
    return {
        "seen": evaluate.spread([r for r in test if r.origin.kind not in UNSEEN], TEST_ROWS, 0),
        "unseen": evaluate.spread([r for r in test if r.origin.kind in UNSEEN], TEST_ROWS, 0),
    }


def one_run(
    rows: list[Example], out: Path, init: str, rate: float, seed: int, *, whole: bool
) -> dict[str, Any]:
    """Train, and take the losses of the adapters that validated best.

    Args:
        whole: generate answers too, and read the export.
    """
    started = time.perf_counter()
    result = train.run(
        rows, out=out, model=MODEL, init=init, rank=RANK, layers=LAYERS, steps=STEPS, seed=seed,
        learning_rate=rate, valid_every=VALID_EVERY, valid_rows=VALID_ROWS, max_tokens=1024,
        targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        alternations=ALTERNATIONS,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    curve = [(m["step"], m["valid_loss"]) for m in read_rows(out) if "valid_loss" in m]
    tuned, test = load_tuned(result.adapters), test_rows(rows)
    found: dict[str, Any] = {
        "init": init, "rate": rate, "seed": seed, "whole": whole, "valid": curve,
        "best_valid": result.best_valid_loss, "seconds": round(seconds),
    }  # fmt: skip
    for name, chosen in test.items():
        chats = [row.messages for row in chosen]
        found[name] = [round(loss, 5) for loss in answer_losses(tuned, chats, name, SILENT)]
    if whole:
        for name, chosen in test.items():
            found[f"f1_{name}"] = _f1(tuned, chosen[:ANSWER_ROWS])
        found |= _exported(tuned, result.adapters, test)
    return found


def _f1(tuned: Loaded, rows: list[Example]) -> list[float]:
    found = [0.0] * len(rows)

    def keep(index: int, answer: Continuation) -> None:
        text = tuned.tokenizer.decode(answer.tokens)
        found[index] = score(rows[index], text)["answer_f1"]

    prompts = [prompt_ids(tuned.tokenizer, row.messages[:-1]) for row in rows]
    generate(tuned, prompts, ANSWER_TOKENS, keep)
    return found


def _exported(tuned: Loaded, adapters: Path, test: dict[str, list[Example]]) -> dict[str, Any]:
    """Answer losses of the Q4_K_M file in llama.cpp."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        files, _ = export.run(adapters=adapters, out=Path(folder), name="run", parity=False)
        with LlamaCpp(files[0], 1024) as exported:
            for name, chosen in test.items():
                losses = [_loss(exported.logits, tuned.tokenizer, row) for row in chosen]
                found[f"exported_{name}"] = [round(loss, 5) for loss in losses]
    return found


def _loss(logits: Callable[[list[int]], np.ndarray], tokenizer: Any, example: Example) -> float:
    """Mean cross-entropy per answer token, in nats."""
    row = tokenise(tokenizer, example.messages)
    of = logits(row.ids)[row.start - 1 : -1].astype(np.float64)
    of -= of.max(axis=1, keepdims=True)
    chosen = of[np.arange(len(of)), row.ids[row.start :]]
    return float((np.log(np.exp(of).sum(axis=1)) - chosen).mean())


def read_runs() -> list[dict[str, Any]]:
    """What was trained so far."""
    return [json.loads(line) for line in RUNS.read_text().splitlines()] if RUNS.exists() else []


def best_rate(runs: Sequence[dict[str, Any]], init: str) -> float:
    """The rate whose seed 0 came to the least validation loss."""
    of = [run for run in runs if run["init"] == init and run["seed"] == 0]
    return float(min(of, key=lambda run: run["best_valid"])["rate"])


def missing(inits: Sequence[str]) -> Iterator[tuple[str, float, int, bool]]:
    """Init, rate, seed and `whole` of the runs that are still to do; asked anew after each."""
    for init in inits:
        of = {run["rate"] for run in read_runs() if run["init"] == init and run["seed"] == 0}
        begin = [best_rate(read_runs(), LIKE[init])] if init in LIKE else RATES
        if todo := [rate for rate in begin if rate not in of]:
            yield init, todo[0], 0, False
            continue
        best = best_rate(read_runs(), init)
        done = {
            run["seed"]
            for run in read_runs()
            if run["init"] == init and run["rate"] == best and run["whole"]
        }
        if todo := [seed for seed in SEEDS if seed not in done]:
            yield init, best, todo[0], True
        elif best in (min(of), max(of)):
            yield init, best / FACTOR if best == min(of) else best * FACTOR, 0, False


def main() -> None:
    """Train what is missing, one run after another."""
    work = Path(sys.argv[1]) if len(sys.argv) > 1 else cache_dir() / "pissa-runs"
    rows = make_rows()
    while todo := next(missing(sys.argv[2:] or INITS), None):
        init, rate, seed, whole = todo
        out = work / f"{init}-{rate:g}-{seed}"
        print(f"{init}, rate {rate:g}, seed {seed}", file=sys.stderr, flush=True)
        found = one_run(rows, out, init, rate, seed, whole=whole)
        with open(RUNS, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(found) + "\n")
        mx.clear_cache()


if __name__ == "__main__":
    main()
