"""What a model makes of the test rows: loss on the reference answers, and its own answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from forge_cli.core.events import Reporter
from forge_cli.core.records import Example
from forge_cli.models.answer_losses import by_context
from forge_cli.models.backend import mx
from forge_cli.models.chat import tokenise
from forge_cli.models.load import Loaded
from forge_cli.models.shared_context import lm_head

_BATCH = 16
# A base model that does not know when to stop would fill any limit.
_MAX_ANSWER = 160


def generate(
    loaded: Loaded,
    examples: Sequence[Example],
    name: str,
    reporter: Reporter,
) -> list[str]:
    """Greedy answers, batched; the prompts of a context share their prefix.

    An answer may be half as long again as the longest reference: what a model still has
    to say after that cannot mend it.
    """
    rows = [tokenise(loaded.tokenizer, example.messages) for example in examples]
    limit = min(_MAX_ANSWER, max(32, round(1.5 * max(row.supervised for row in rows))))
    texts = [""] * len(examples)
    with reporter.task(f"{name}: answers", len(examples)) as task:
        for batch in _batches(by_context(examples)):
            indices: list[int] = []
            branches: list[list[int]] = []
            caches: list[list[Any]] = []
            for group in batch:
                rest, filled = _share_prefix(loaded, [rows[i].ids[: rows[i].start] for i in group])
                indices, branches, caches = indices + group, branches + rest, caches + filled
            answers = decode(loaded, branches, caches, limit)
            for index, answer in zip(indices, answers, strict=True):
                texts[index] = loaded.tokenizer.decode(answer)
            task.advance(len(indices))
            mx.clear_cache()
    return texts


def _batches(groups: list[list[int]]) -> Iterator[list[list[int]]]:
    """Whole contexts, up to `_BATCH` rows together."""
    batch: list[list[int]] = []
    for group in groups:
        if batch and sum(map(len, batch)) + len(group) > _BATCH:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


def decode(
    loaded: Loaded, prompts: list[list[int]], caches: list[list[Any]], limit: int
) -> list[list[int]]:
    """Greedy continuations of a batch of prompts, each without its end-of-turn token.

    Args:
        prompts: what each row's cache does not hold yet, at least one token.
        caches: per row, one KVCache per layer.
        limit: most tokens of an answer.
    """
    ends = set(loaded.tokenizer.eos_token_ids)
    width = max(map(len, prompts))
    padding = [width - len(prompt) for prompt in prompts]
    cache = [layer[0].merge(layer) for layer in map(list, zip(*caches, strict=True))]
    for layer in cache:
        layer.prepare(lengths=[len(p) for p in prompts], right_padding=padding)
    inputs = mx.array([p + [0] * n for p, n in zip(prompts, padding, strict=True)])
    hidden = loaded.model.model(inputs, cache=cache)
    for layer in cache:
        layer.finalize()
    last = mx.array([len(p) - 1 for p in prompts])
    hidden = hidden[mx.arange(len(prompts)), last]
    answers: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    for _ in range(limit):
        tokens = mx.argmax(lm_head(loaded.model, hidden), axis=-1)
        going = []
        for place, token in enumerate(np.array(tokens)):
            if int(token) not in ends:
                answers[alive[place]].append(int(token))
                going.append(place)
        if not going:
            break
        if len(going) < len(alive):
            alive, keep = [alive[place] for place in going], mx.array(going)
            tokens = tokens[keep]
            for layer in cache:
                layer.filter(keep)
        hidden = loaded.model.model(tokens[:, None], cache=cache)[:, 0]
    return answers


def _share_prefix(
    loaded: Loaded, prompts: list[list[int]]
) -> tuple[list[list[int]], list[list[Any]]]:
    """Run the common prefix of prompts once.

    Returns:
        What is left of each prompt (at least one token), and each one's filled cache.
    """
    from mlx_lm.models.cache import KVCache, make_prompt_cache

    shortest = min(map(len, prompts)) - 1
    first = prompts[0]
    shared = 0
    while shared < shortest and all(prompt[shared] == first[shared] for prompt in prompts):
        shared += 1
    filled = make_prompt_cache(loaded.model)
    loaded.model.model(mx.array([first[:shared]]), cache=filled)
    mx.eval([(cache.keys, cache.values) for cache in filled])
    caches = []
    for _ in prompts:
        own = []
        for cache in filled:
            copy = KVCache()
            # New array objects: a cache writes into its arrays.
            copy.keys, copy.values = mx.array(cache.keys), mx.array(cache.values)
            copy.offset = cache.offset
            own.append(copy)
        caches.append(own)
    return [prompt[shared:] for prompt in prompts], caches
