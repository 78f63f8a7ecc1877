"""What goes into each matrix, counted independently; the model is left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from forge_cli.core.errors import ForgeError
from forge_cli.export.activations import mean_squares
from forge_cli.export.merge import merged_weights
from forge_cli.models.backend import mx, nn
from forge_cli.models.lora import LoRALinear

ROWS = [[1, 2, 3, 4, 5], [6, 7, 8]]


def tiny() -> nn.Module:
    from mlx_lm.models import llama

    mx.random.seed(0)
    given = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 50,
        "rope_theta": 1e4, "tie_word_embeddings": True,
    }  # fmt: skip
    return llama.Model(llama.ModelArgs.from_dict(given))


def of_rows(model: nn.Module, inputs: Any) -> np.ndarray:
    """Mean squares of what `inputs` gives for each row."""
    seen = np.concatenate([np.array(inputs(mx.array([ids])))[0] for ids in ROWS])
    return np.asarray((seen.astype(np.float64) ** 2).mean(axis=0))


@pytest.mark.parametrize("kind", ["plain", "quantised", "adapters"])
def test_means_are_those_of_the_inputs(kind: str) -> None:
    model = tiny()
    if kind != "plain":
        nn.quantize(model, group_size=32, bits=8)
    attention = model.model.layers[0].self_attn
    if kind == "adapters":
        A, B = mx.random.normal((4, 64)), mx.random.normal((64, 4))
        attention.q_proj = LoRALinear(attention.q_proj, A, B, 0.5)
    before = [type(module) for module in model.modules()]
    found = mean_squares(model, ROWS)
    assert [type(module) for module in model.modules()] == before

    first = "model.layers.0.self_attn."
    body, layer = model.model, model.model.layers[0]
    wanted = of_rows(model, lambda ids: layer.input_layernorm(body.embed_tokens(ids)))
    for part in "qkv":
        assert np.allclose(found[f"{first}{part}_proj.weight"], wanted, rtol=1e-4)
    assert np.allclose(found["model.embed_tokens.weight"], of_rows(model, body), rtol=1e-4)
    shapes = {name: weight.shape for name, weight in merged_weights(model).items()}
    assert {name: mean.shape for name, mean in found.items()} == {
        name: shape[1:] for name, shape in shapes.items() if len(shape) == 2
    }


@pytest.mark.parametrize("tokens", [3, 40])  # MLX sorts many tokens by expert
def test_each_expert_has_the_mean_of_its_own_tokens(tokens: int) -> None:
    from mlx_lm.models.switch_layers import SwitchGLU

    mx.random.seed(0)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = SwitchGLU(16, 32, 4)

        def __call__(self, ids: mx.array) -> mx.array:
            return self.mlp(x[ids], chosen[ids])

    x = mx.random.normal((tokens, 16))
    chosen = mx.array([[i % 3, (i + 1) % 3] for i in range(tokens)])  # never the last
    found = mean_squares(Block(), [list(range(tokens))])
    own, which = np.array(x), np.array(chosen)
    for expert in range(3):
        wanted = (own[(which == expert).any(axis=1)] ** 2).mean(axis=0)
        assert np.allclose(found["mlp.gate_proj.weight"][expert], wanted, rtol=1e-4)
    assert (found["mlp.gate_proj.weight"][3] == 1).all()
    assert found["mlp.down_proj.weight"].shape == (4, 32)
    assert (found["mlp.down_proj.weight"][3] == 1).all()


def test_what_is_not_finite_is_refused() -> None:
    model = tiny()
    model.model.layers[1].mlp.up_proj.weight *= float("nan")
    before = [type(module) for module in model.modules()]
    with pytest.raises(ForgeError, match=r"inputs of model\.layers\.1\.mlp\.down_proj"):
        mean_squares(model, ROWS)
    assert [type(module) for module in model.modules()] == before
