"""GGUF in, Hugging Face directory out: config, weights, tokenizer and chat template.

Source: the GGUF specification (ggml docs/gguf.md) and llama.cpp's `conversion/`,
which this inverts. The result is what `mlx_lm` loads, so nothing after this knows
that the model came from a GGUF.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.places import cache_dir
from forge_cli.models.pretokenizers import IGNORE_MERGES, NORMALIZERS, PRE_TOKENIZERS

# GGUF architecture → Hugging Face class; llama.cpp rotates q and k rows of Llama only.
ARCHITECTURES = {
    "llama": ("llama", "LlamaForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
}
_ROTATED = {"llama"}

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

_CONTROL, _USER_DEFINED = 3, 4  # gguf.TokenType
_YARN_EXTRAS = (
    "attn_factor", "yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow",
    "yarn_log_multiplier",
)  # fmt: skip
_ORIGINAL = "use the model's original Hugging Face weights"
_FORMAT = "2"  # raised when what this module writes changes


def import_gguf(file: Path, *, reporter: Reporter = SILENT) -> Path:
    """Convert a GGUF file to a Hugging Face directory in the cache, once.

    Weights are dequantised in float32 and stored as float16.

    Returns:
        The directory: config.json, model.safetensors, tokenizer.json, chat template.

    Raises:
        ForgeError: not a GGUF, or an architecture, tensor or tokenizer that Forge
            cannot read exactly.
    """
    digest = _hash(file)
    target = cache_dir() / "models" / f"{file.stem}-{digest[:16]}"
    if (target / "config.json").exists():
        return target
    reader = _open(file)

    def get(key: str, *default: Any) -> Any:
        if key not in reader.fields and not default:
            raise ForgeError(f"{file}: has no {key}", "take a complete GGUF of a language model")
        return reader.fields[key].contents() if key in reader.fields else default[0]

    arch = get("general.architecture")
    if arch not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ForgeError(f"{file}: architecture {arch} is not supported", f"supported: {known}")
    config = _config(arch, get, {tensor.name for tensor in reader.tensors})
    config |= _rope(arch, get, config["head_dim"], file)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        _save_weights(work, reader, arch, config, file, reporter)
        _save_tokenizer(work, get, file)
        (work / "config.json").write_text(json.dumps(config, indent=2))
        work.chmod(0o755)
        work.rename(target)
    except OSError as error:
        if (target / "config.json").exists():  # another process was first
            return target
        raise ForgeError(f"{target}: cannot write: {error.strerror}", "free some space") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _hash(file: Path) -> str:
    digest = hashlib.sha256(_FORMAT.encode())
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _open(file: Path) -> Any:
    from gguf import GGUFReader

    try:
        return GGUFReader(str(file))
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise ForgeError(f"{file}: not a readable GGUF: {error}", "download it again") from None


def _config(arch: str, get: Callable[..., Any], tensors: set[str]) -> dict[str, Any]:
    model_type, cls = ARCHITECTURES[arch]
    heads = get(f"{arch}.attention.head_count")
    hidden = get(f"{arch}.embedding_length")
    config = {
        "architectures": [cls],
        "model_type": model_type,
        "hidden_size": hidden,
        "num_hidden_layers": get(f"{arch}.block_count"),
        "intermediate_size": get(f"{arch}.feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": get(f"{arch}.attention.head_count_kv", heads),
        "head_dim": get(f"{arch}.attention.key_length", hidden // heads),
        "rms_norm_eps": round(get(f"{arch}.attention.layer_norm_rms_epsilon"), 12),
        "max_position_embeddings": get(f"{arch}.context_length"),
        "vocab_size": len(get("tokenizer.ggml.tokens")),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": arch == "llama" and "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        "bos_token_id": get("tokenizer.ggml.bos_token_id", None),
        "eos_token_id": get("tokenizer.ggml.eos_token_id", None),
    }
    return config


def _rope(arch: str, get: Callable[..., Any], head_dim: int, file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"rope_theta": get(f"{arch}.rope.freq_base", 10000.0)}
    if get(f"{arch}.rope.dimension_count", head_dim) != head_dim:
        raise ForgeError(f"{file}: a partial rotary embedding is not supported", _ORIGINAL)
    kind = get(f"{arch}.rope.scaling.type", "none")
    if kind not in ("none", "linear", "yarn"):
        raise ForgeError(f"{file}: rope scaling {kind} is not supported", _ORIGINAL)
    if kind != "none":
        factor = get(f"{arch}.rope.scaling.factor")
        found["rope_scaling"] = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        tuned = [k for k in _YARN_EXTRAS if get(f"{arch}.rope.scaling.{k}", None) is not None]
        if tuned:
            raise ForgeError(f"{file}: yarn with {tuned[0]} is not supported", _ORIGINAL)
        original = get(f"{arch}.rope.scaling.original_context_length")
        found["rope_scaling"]["original_max_position_embeddings"] = original
    return found


def _save_weights(
    work: Path, reader: Any, arch: str, config: dict[str, Any], file: Path, reporter: Reporter
) -> None:
    from forge_cli.models.backend import mx

    weights = {}
    with reporter.task(f"reading {file.name}", len(reader.tensors)) as task:
        for name, value in _tensors(reader, arch, config, file):
            if name == "rope_freqs":
                config["rope_scaling"] = _llama3_scaling(value, config, file)
            else:
                weights[name] = mx.array(_half(value, name, file))
            task.advance()
    mx.save_safetensors(str(work / "model.safetensors"), weights, metadata={"format": "pt"})


def _half(value: np.ndarray, name: str, file: Path) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if not np.isfinite(half).all():
        raise ForgeError(f"{file}: {name} has values beyond float16", _ORIGINAL)
    return half


def _tensors(
    reader: Any, arch: str, config: dict[str, Any], file: Path
) -> Iterator[tuple[str, np.ndarray]]:
    from gguf import dequantize

    for tensor in reader.tensors:
        try:
            value = dequantize(tensor.data, tensor.tensor_type)
        except (NotImplementedError, ValueError) as error:
            raise ForgeError(f"{file}: tensor {tensor.name}: {error}", _ORIGINAL) from None
        value = value.reshape([int(n) for n in reversed(tensor.shape)])
        if tensor.name == "rope_freqs.weight":
            yield "rope_freqs", value
            continue
        name = _hf_name(tensor.name)
        if name is None:
            raise ForgeError(
                f"{file}: tensor {tensor.name} is unknown in a {arch} model",
                _ORIGINAL,
            )
        if arch in _ROTATED and (".q_proj." in name or ".k_proj." in name):
            query = ".q_proj." in name
            heads = config["num_attention_heads" if query else "num_key_value_heads"]
            value = unrotate(value, heads)
        yield name, value


def _hf_name(name: str) -> str | None:
    if name in _TOP:
        return _TOP[name]
    match name.split("."):
        case ["blk", layer, part, leaf] if part in _BLOCK:
            return f"model.layers.{layer}.{_BLOCK[part]}.{leaf}"
    return None


def unrotate(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's reordering of q/k rows (pairs side by side → halves).

    Args:
        weight: [heads · head_dim, in] or a bias [heads · head_dim].
    """
    rows = weight.shape[0]
    split = weight.reshape(heads, rows // heads // 2, 2, *weight.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))


def _llama3_scaling(factors: np.ndarray, config: dict[str, Any], file: Path) -> dict[str, Any]:
    """The `rope_scaling` whose frequency factors are these, or an error: never a near miss."""
    scaling = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    if not np.allclose(llama3_factors(scaling, config), factors, rtol=1e-4):
        raise ForgeError(
            f"{file}: its rope factors are not Llama 3's",
            _ORIGINAL,
        )
    return scaling


def llama3_factors(scaling: dict[str, Any], config: dict[str, Any]) -> np.ndarray:
    """Llama 3 frequency factors, float32 [head_dim / 2] (llama.cpp `conversion/llama.py`)."""
    dim = config["head_dim"]
    inverse = config["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float64) / dim)
    wavelength = 2 * np.pi * inverse
    original = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = np.clip((original / wavelength - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / scaling["factor"] + smooth)).astype(np.float32)


def _save_tokenizer(work: Path, get: Callable[..., Any], file: Path) -> None:
    model, pre = get("tokenizer.ggml.model"), get("tokenizer.ggml.pre", None)
    if model != "gpt2" or pre not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise ForgeError(
            f"{file}: tokenizer {model}/{pre} is not supported", f"supported: gpt2 with {known}"
        )
    tokens, types = get("tokenizer.ggml.tokens"), get("tokenizer.ggml.token_type")
    added = [
        {
            "id": i, "content": tokens[i], "special": kind == _CONTROL, "normalized": False,
            "single_word": False, "lstrip": False, "rstrip": False,
        }
        for i, kind in enumerate(types)
        if kind in (_CONTROL, _USER_DEFINED)
    ]  # fmt: skip
    byte_level = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True,
    }  # fmt: skip
    document = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": NORMALIZERS.get(pre),
        "pre_tokenizer": PRE_TOKENIZERS[pre],
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre in IGNORE_MERGES,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in get("tokenizer.ggml.merges")],
        },
    }
    (work / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False))
    named = {
        f"{name}_token": tokens[index]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if (index := get(f"tokenizer.ggml.{key}_token_id", None)) is not None
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, **named}
    if get("tokenizer.ggml.add_bos_token", False):
        settings["add_bos_token"] = True
        document["post_processor"] = _bos_processor(named["bos_token"], tokens)
        (work / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False))
    (work / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    if template := get("tokenizer.chat_template", None):
        (work / "chat_template.jinja").write_text(template)


def _bos_processor(bos: str, tokens: list[str]) -> dict[str, Any]:
    single = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {bos: {"id": bos, "ids": [tokens.index(bos)], "tokens": [bos]}}
    return {
        "type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special,
    }  # fmt: skip
