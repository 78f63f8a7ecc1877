"""Text from a model: a batch says what each prompt alone would get, and 4-bit stays 4-bit."""

from __future__ import annotations

from pathlib import Path

from forge_cli.core.records import Message
from forge_cli.models.backend import nn
from forge_cli.models.generate import generate, load_to_generate
from forge_cli.models.load import load_dense
from tiny_train import save_model

PROMPTS = [[Message(role="user", content=text)] for text in ("def f(x):", "import json", "a" * 40)]


def test_a_batch_answers_as_each_prompt_alone(tmp_path: Path) -> None:
    loaded = load_to_generate(str(save_model(tmp_path)))
    together = generate(loaded, PROMPTS, 8)
    assert [found.prompt_tokens > 0 and 0 < found.tokens <= 8 for found in together] == [True] * 3
    assert together == generate(loaded, PROMPTS, 8)
    alone = [generate(loaded, [prompt], 8)[0] for prompt in PROMPTS]
    assert [a.prompt_tokens for a in alone] == [t.prompt_tokens for t in together]
    # Rounding may part random logits, but not at the first token.
    assert [a.text[:1] for a in alone] == [t.text[:1] for t in together]


def test_a_quantised_model_is_not_unpacked(tmp_path: Path) -> None:
    from mlx_lm.utils import quantize_model, save

    dense = load_dense(str(save_model(tmp_path / "dense")))
    model, config = quantize_model(dense.model, dense.config, group_size=64, bits=4)
    save(tmp_path / "packed", tmp_path / "dense", model, dense.tokenizer, config)
    loaded = load_to_generate(str(tmp_path / "packed"))
    kinds = {type(layer) for _, layer in loaded.model.named_modules()}
    assert nn.QuantizedLinear in kinds and nn.Linear not in kinds
    assert generate(loaded, PROMPTS[:1], 4)[0].tokens > 0
