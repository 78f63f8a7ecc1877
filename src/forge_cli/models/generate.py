"""Text from a model: greedy, in batches, by mlx-lm's own batch generator."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Message
from forge_cli.models.backend import mx
from forge_cli.models.chat import prompt_ids
from forge_cli.models.load import Loaded, flat_rope, load_dense, load_tokenizer
from forge_cli.models.resolve import resolve


@dataclass(frozen=True)
class Written:
    """One continuation, and how many tokens were read and written for it."""

    text: str
    prompt_tokens: int
    tokens: int


def load_to_generate(name: str, *, reporter: Reporter = SILENT) -> Loaded:
    """The model `name`; one that is stored quantised stays so, unlike in `load_dense`.

    Raises:
        UsageError, ForgeError: as `load_dense`.
    """
    path = resolve(name, reporter=reporter)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if not config.get("quantization"):
        return load_dense(name, reporter=reporter)
    from mlx_lm.utils import load_model

    try:
        model, config = load_model(path, lazy=True, model_config=flat_rope(config))
    except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ForgeError(f"{path}: cannot load: {reason}", "choose another model") from None
    model.eval()
    mx.eval(model.parameters())
    return Loaded(name, path, model, load_tokenizer(path), config)


def generate(
    loaded: Loaded, prompts: Sequence[Sequence[Message]], max_tokens: int
) -> list[Written]:
    """Greedy continuations of one batch of chats, each without its end-of-turn token."""
    # mlx_lm.generate the function hides mlx_lm.generate the module.
    mlx_generate = importlib.import_module("mlx_lm.generate")
    ids = [prompt_ids(loaded.tokenizer, prompt) for prompt in prompts]
    made = mlx_generate.batch_generate(
        loaded.model, loaded.tokenizer, ids, max_tokens=max_tokens, return_token_ids=True
    )
    mx.clear_cache()
    return [
        Written(text, len(prompt), len(tokens))
        for text, prompt, tokens in zip(made.texts, ids, made.token_ids, strict=True)
    ]
