"""Answers from a model in memory: in batches, the prompts' shared beginnings run once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from forge_cli.models.backend import mx
from forge_cli.models.load import Loaded
from forge_cli.models.prefixes import group_by_prefix, shared_length
from forge_cli.models.row_losses import runs_apart
from forge_cli.models.sampling import Draw
from forge_cli.models.shared_context import lm_head

_BATCH = 16

# Of a prompt, by its number, and the tokens of its answer so far: whether that is all of it.
Ended = Callable[[int, list[int]], bool]


@dataclass(frozen=True)
class Continuation:
    """What a model went on with, up to its end-of-turn token.

    Attributes:
        tokens: ids, without the end-of-turn token.
        log_probabilities: of each of them and, last, of the end (none where the limit cut it).
    """

    tokens: list[int]
    log_probabilities: list[float]

    @property
    def confidence(self) -> float:
        """The geometric mean of the tokens' probabilities, between 0 and 1."""
        found = self.log_probabilities
        return float(np.exp(np.mean(found))) if found else 1.0


def generate(
    loaded: Loaded,
    prompts: Sequence[list[int]],
    limit: int,
    done: Callable[[int, Continuation], None],
    draws: Sequence[Draw] = (),
    ended: Ended | None = None,
) -> None:
    """Answer every prompt; `done` gets its index and the answer, batch by batch.

    Args:
        prompts: token ids. limit: most tokens of an answer.
        draws: of each prompt, how it is answered; none: greedily.
        ended: asked after every token (None: only the end of turn or the limit ends an answer).
    """
    if runs_apart(loaded.model):
        for index, prompt in enumerate(prompts):
            draw = draws[index] if draws else None
            done(index, _alone(loaded, prompt, limit, draw, _of([index], ended)))
        return
    # Samples of one prompt differ in no token: as many as a batch holds branch from it.
    groups = group_by_prefix(prompts, _BATCH) if draws else group_by_prefix(prompts)
    for batch in _batches(groups):
        indices: list[int] = []
        branches: list[list[int]] = []
        caches: list[list[Any]] = []
        for group in batch:
            rest, filled = share_prefix(loaded, [prompts[i] for i in group])
            indices, branches, caches = indices + group, branches + rest, caches + filled
        own = [draws[i] for i in indices] if draws else ()
        answers = decode(loaded, branches, caches, limit, own, _of(indices, ended))
        for index, answer in zip(indices, answers, strict=True):
            done(index, answer)
        mx.clear_cache()


def _of(indices: list[int], ended: Ended | None) -> Ended | None:
    """The same question of the rows of one batch."""
    return ended and (lambda row, tokens: ended(indices[row], tokens))


def _alone(
    loaded: Loaded,
    prompt: list[int],
    limit: int,
    draw: Draw | None = None,
    ended: Ended | None = None,
) -> Continuation:
    """The same for one prompt in a model with another kind of cache, by mlx-lm's own loop."""
    from mlx_lm.generate import generate_step

    answer, steps = Continuation([], []), count()

    def pick(chances: mx.array) -> mx.array:  # log-probabilities [1, V], once for each token
        return _choose(chances.astype(mx.float32), [draw] if draw else (), next(steps))

    made = generate_step(mx.array(prompt), loaded.model, max_tokens=limit, sampler=pick)
    for token, chances in made:
        answer.log_probabilities.append(float(chances[token]))
        if token in loaded.tokenizer.eos_token_ids:
            break
        answer.tokens.append(int(token))
        if ended and ended(0, answer.tokens):
            break
    return answer


def _batches(groups: list[list[int]]) -> Iterator[list[list[int]]]:
    """Whole groups, up to `_BATCH` rows together."""
    batch: list[list[int]] = []
    for group in groups:
        if batch and sum(map(len, batch)) + len(group) > _BATCH:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


def decode(
    loaded: Loaded,
    prompts: list[list[int]],
    caches: list[list[Any]],
    limit: int,
    draws: Sequence[Draw] = (),
    ended: Ended | None = None,
) -> list[Continuation]:
    """Continuations of a batch of prompts.

    Args:
        prompts: what each row's cache does not hold yet, at least one token.
        caches: per row, one KVCache per layer.
        limit: most tokens of an answer.
        draws: of each row; none: greedy.
        ended: see `generate`; the number is the row's.
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
    answers = [Continuation([], []) for _ in prompts]
    alive = list(range(len(prompts)))
    for step in range(limit):
        own = [draws[index] for index in alive] if draws else ()
        tokens, chances = _next(lm_head(loaded.model, hidden), own, step)
        going = []
        for place, (token, chance) in enumerate(zip(np.array(tokens), chances, strict=True)):
            answer = answers[alive[place]]
            answer.log_probabilities.append(float(chance))
            if int(token) not in ends:
                answer.tokens.append(int(token))
                if not (ended and ended(alive[place], answer.tokens)):
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


def _next(logits: mx.array, draws: Sequence[Draw], step: int) -> tuple[mx.array, np.ndarray]:
    """The token of each row of logits [N, V], and its log-probability in the model, float32."""
    logits = logits.astype(mx.float32)
    tokens = _choose(logits, draws, step)
    chosen = mx.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    chances = chosen - mx.logsumexp(logits, axis=-1)
    mx.eval(tokens, chances)
    return tokens, np.array(chances)


def _choose(logits: mx.array, draws: Sequence[Draw], step: int) -> mx.array:
    """Of each row of logits [N, V], float32, its draw's token at place `step`, or the likeliest."""
    if draws:
        noise = np.stack([draw.noise(step, logits.shape[-1]) for draw in draws])
        heat = mx.array([[draw.temperature] for draw in draws])
        logits = logits / heat + mx.array(noise.astype(np.float32))
    return mx.argmax(logits, axis=-1)


def share_prefix(
    loaded: Loaded, prompts: list[list[int]]
) -> tuple[list[list[int]], list[list[Any]]]:
    """Run the common prefix of prompts once.

    Returns:
        What is left of each prompt (at least one token), and each one's filled cache.
    """
    from mlx_lm.models.cache import KVCache, make_prompt_cache

    shared = shared_length(prompts)
    filled = make_prompt_cache(loaded.model)
    loaded.model.model(mx.array([prompts[0][:shared]]), cache=filled)
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
