"""Answers to RAFT rows: Forge's batches with shared beginnings against mlx_lm.generate row by row.

python benchmarks/generation.py [ROWS]

SmolLM2-135M, dense in float32 in both (the same arrays), the same BLAS and the same prompts: held
rows of the standard library's `asyncio`, five questions a context, at most 64 tokens an answer,
greedy. Two rounds in turn; says how many answers are equal, token by token. mlx-lm's own
batch_generate, which shares no beginnings, is the third side.
"""

from __future__ import annotations

import statistics
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from forge_cli import mine, raft
from forge_cli.evaluate.generation import Continuation, generate
from forge_cli.models.backend import mx
from forge_cli.models.chat import prompt_ids
from forge_cli.models.load import load_dense

ROUNDS, LIMIT = 2, 64
Answers = list[list[int]]


def make_prompts(loaded: object, count: int) -> list[list[int]]:
    """Token ids of whole contexts' questions, in the order of the data."""
    tree = Path(sysconfig.get_paths()["stdlib"]) / "asyncio"
    rows = list(raft.run(mine.run(tree, max_chars=900), distractors=2, questions=5))
    return [prompt_ids(loaded.tokenizer, row.messages[:-1]) for row in rows[:count]]  # type: ignore[attr-defined]


def main() -> None:
    """Time the three sides and compare what they said."""
    from mlx_lm.generate import batch_generate, generate_step

    loaded = load_dense("smollm2-135m")
    prompts = make_prompts(loaded, int(sys.argv[1]) if len(sys.argv) > 1 else 40)
    ends = set(loaded.tokenizer.eos_token_ids)

    def forge() -> Answers:
        found: Answers = [[] for _ in prompts]

        def keep(index: int, answer: Continuation) -> None:
            found[index] = answer.tokens

        generate(loaded, prompts, LIMIT, keep)
        return found

    def alone() -> Answers:
        found = []
        for prompt in prompts:
            tokens: list[int] = []
            for token, _ in generate_step(mx.array(prompt), loaded.model, max_tokens=LIMIT):
                if int(token) in ends:
                    break
                tokens.append(int(token))
            found.append(tokens)
        return found

    def batched() -> Answers:
        made = batch_generate(
            loaded.model, loaded.tokenizer, prompts, max_tokens=LIMIT, return_token_ids=True
        )
        return [[t for t in tokens if t not in ends] for tokens in made.token_ids]

    sides: dict[str, Callable[[], Answers]] = {
        "Forge": forge, "mlx_lm.generate, row by row": alone, "mlx_lm batch_generate": batched,
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    said: dict[str, Answers] = {}
    for _ in range(ROUNDS):
        for name, work in sides.items():
            begun = time.perf_counter()
            said[name] = work()
            seconds[name].append(time.perf_counter() - begun)
            mx.clear_cache()
    tokens = sum(map(len, said["Forge"]))
    print(f"{len(prompts)} prompts, {sum(map(len, prompts))} tokens; {tokens} tokens answered")
    print(f"{'':30}{'seconds':>9}{'Forge is faster by':>20}{'equal answers':>15}")
    for name, taken in seconds.items():
        pairs = zip(taken, seconds["Forge"], strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        equal = sum(a == b for a, b in zip(said[name], said["Forge"], strict=True))
        print(f"{name:30}{statistics.median(taken):9.1f}{ratio:20.2f}{equal:12} of {len(prompts)}")


if __name__ == "__main__":
    main()
