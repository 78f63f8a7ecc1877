"""Rows that share no context, packed and one by one: what packing gains.

python benchmarks/train_packing.py [ROUNDS]

SmolLM2-135M in float32, LoRA of rank 8 on all linear layers of the last 16 blocks. The rows are the
questions of the standard library's `email` package without their documents: short chats, as people
have them. Both ways take turns on the same 32 rows; printed are supervised tokens a second (median)
and the median of the ratios.
"""

from __future__ import annotations

import statistics
import sys
import sysconfig
import time
from pathlib import Path

from forge_cli import mine, raft
from forge_cli.core.records import Message
from forge_cli.models.adapters import AdapterConfig
from forge_cli.models.backend import mx, nn
from forge_cli.models.chat import tokenise
from forge_cli.models.load import load_dense
from forge_cli.models.shared_context import Row, group_rows, token_losses
from forge_cli.train.initial import start_adapters
from forge_cli.train.micro_batches import Batch, as_batch, pack_singles

MODEL, ROWS, ROOM = "smollm2-135m", 32, 2048
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_rows(tokenizer: object) -> list[Row]:
    """Questions and answers without documents."""
    tree = Path(sysconfig.get_paths()["stdlib"]) / "email"
    rows = []
    for example in raft.run(mine.run(tree)):
        question = Message(role="user", content=example.question)
        rows.append(tokenise(tokenizer, [question, example.messages[-1]]))
    return rows[:: max(1, len(rows) // ROWS)][:ROWS]


def main() -> None:
    """Print the comparison."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    loaded = load_dense(MODEL)
    config = AdapterConfig(MODEL, "lora", 8, 8.0, 16, 64, [])
    start_adapters(loaded.model, config, targets=TARGETS, layers=16, seed=0)
    loaded.model.train()
    rows = make_rows(loaded.tokenizer)
    single = [as_batch(group_rows([row]), [str(number)]) for number, row in enumerate(rows)]
    ways = {"one by one": single, "packed": pack_singles(single, ROOM)}
    work = nn.value_and_grad(loaded.model, lambda model, group: token_losses(model, group).sum())

    def seconds(batches: list[Batch]) -> float:
        started = time.perf_counter()
        for batch in batches:
            mx.eval(work(loaded.model, batch.data))
        return time.perf_counter() - started

    found: dict[str, list[float]] = {name: [] for name in ways}
    seconds(single[:4])
    for _ in range(rounds):
        for name, batches in ways.items():
            found[name].append(seconds(batches))
    supervised = sum(batch.supervised for batch in single)
    lengths = statistics.quantiles([batch.tokens for batch in single], n=4)
    print(f"{len(rows)} rows, quartiles of their tokens: {', '.join(f'{n:.0f}' for n in lengths)}")
    for name, batches in ways.items():
        rate = supervised / statistics.median(found[name])
        print(f"{name:12}{len(batches):4} passes{rate:10.1f} supervised tokens/s")
    pairs = zip(found["one by one"], found["packed"], strict=True)
    print(f"packed is faster by {statistics.median(a / b for a, b in pairs):.2f}x")


if __name__ == "__main__":
    main()
