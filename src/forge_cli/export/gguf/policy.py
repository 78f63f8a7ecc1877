"""Which type each tensor of a file gets.

The policy is llama.cpp's (`src/llama-quant.cpp`), so that a file made here and one made by
`llama-quantize` hold the same bytes (tests/unit/test_gguf_bytes.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Quant:
    """A kind of file: its type for most matrices and its number in `general.file_type`."""

    base: str
    file_type: int  # gguf.LlamaFileType


QUANTS = {
    "f32": Quant("F32", 0),
    "f16": Quant("F16", 1),
    "bf16": Quant("BF16", 32),
    "q8_0": Quant("Q8_0", 7),
    "q6_k": Quant("Q6_K", 18),
    "q5_k_m": Quant("Q5_K", 17),
    "q5_k_s": Quant("Q5_K", 16),
    "q4_k_m": Quant("Q4_K", 15),
    "q4_k_s": Quant("Q4_K", 14),
    "q4_0": Quant("Q4_0", 2),
    "iq4_nl": Quant("IQ4_NL", 25),
    "iq4_xs": Quant("IQ4_XS", 30),
    # Experts in MXFP4, all else in Q8_0.
    "mxfp4": Quant("MXFP4", 38),
    "q3_k_l": Quant("Q3_K", 13),
    "q3_k_m": Quant("Q3_K", 12),
    "q3_k_s": Quant("Q3_K", 11),
}

# Type → elements in a block, and what llama.cpp takes where rows do not fill its blocks.
_BLOCK = dict.fromkeys(("F32", "F16", "BF16"), 1)
_BLOCK |= dict.fromkeys(("Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "IQ4_NL", "MXFP4"), 32)
_BLOCK |= dict.fromkeys(("Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"), 256)
_FALLBACK = {"Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}
# Two files in which an eighth of the layers, and every third of the rest, get more bits.
_MIXED = ("q4_k_m", "q5_k_m")
_IQ4 = ("iq4_nl", "iq4_xs")


@dataclass(frozen=True)
class Shape:
    """What of a model the policy looks at.

    Attributes:
        arch: as in `general.architecture`. layers: blocks.
        tied: there is no output.weight, so the embedding is the output head as well.
        query_groups: query heads that share a key and a value. experts: of a block (0: dense).
        importance: there is an importance matrix.
    """

    arch: str
    layers: int
    tied: bool
    query_groups: int
    experts: int = 0
    importance: bool = False

    @property
    def is_70b(self) -> bool:
        """Whether llama.cpp takes it for a 70B model, in which eight queries share a value."""
        shared = self.query_groups > 1 or self.arch == "qwen2"
        return self.layers == 80 and self.arch in ("llama", "qwen2") and shared


def tensor_type(name: str, shape: Sequence[int], quant: str, model: Shape) -> str:
    """The ggml type of one tensor.

    Args:
        name: GGUF name. shape: [out, in], [experts, out, in] or [n].
        quant: a key of `QUANTS`.
    """
    if len(shape) == 1 or not _may_be_quantised(name):
        return "F32"
    base = QUANTS[quant].base
    if _BLOCK[base] > 1:
        base = _chosen(name, shape, quant, model)
    if shape[-1] % _BLOCK[base]:
        base = _FALLBACK.get(base, "F16")
    return base if shape[-1] % _BLOCK[base] == 0 else "F16"


def _may_be_quantised(name: str) -> bool:
    kept = name.endswith(("_norm.weight", "ffn_gate_inp.weight"))
    return name.endswith("weight") and not kept


def _chosen(name: str, shape: Sequence[int], quant: str, model: Shape) -> str:
    """The type before it is asked whether its blocks fit the rows."""
    base = QUANTS[quant].base
    if name == "output.weight" or (model.tied and name == "token_embd.weight"):
        if quant == "mxfp4" or shape[-1] % _BLOCK[base]:
            return "Q8_0"
        return base if base == "Q8_0" else "Q6_K"
    if quant == "mxfp4":
        return "MXFP4" if len(shape) == 3 else "Q8_0"
    part = name.split(".")
    if part[0] != "blk":
        return base
    layer, kind = int(part[1]), part[2]
    if kind in ("attn_v", "attn_qkv"):
        return _of_values(layer, quant, model)
    if kind == "attn_k" and model.experts == 8:
        return "Q8_0"
    if kind.startswith("ffn_down"):
        return _of_ways_down(layer, quant, model)
    if kind == "attn_output":
        return _of_attention_output(quant, model)
    return base


def _of_values(layer: int, quant: str, model: Shape) -> str:
    if model.experts == 8:
        return "Q8_0"
    base = QUANTS[quant].base
    if quant == "q3_k_m":
        base = "Q5_K" if layer < 2 else "Q4_K"
    elif quant == "q3_k_l" or (quant in _IQ4 and model.query_groups >= 4):
        base = "Q5_K"
    elif quant in _MIXED and _more_bits(layer, model.layers):
        base = "Q6_K"
    elif quant == "q4_k_s" and layer < 4:
        base = "Q5_K"
    return "Q5_K" if model.is_70b and base in ("Q3_K", "Q4_K") else base


def _of_ways_down(layer: int, quant: str, model: Shape) -> str:
    first = layer < model.layers // 8
    if quant == "q3_k_m":
        return "Q5_K" if layer < model.layers // 16 else "Q4_K"
    if quant == "q3_k_l" or (first and quant == "q4_k_s"):
        return "Q5_K"
    if quant in _MIXED and _more_bits(layer, model.layers):
        return "Q6_K"
    if first and quant in _IQ4 and not model.importance:
        return "Q5_K"
    if first and quant == "q4_0" and model.importance:
        return "Q4_1"
    return QUANTS[quant].base


def _of_attention_output(quant: str, model: Shape) -> str:
    base = QUANTS[quant].base
    if model.experts == 8:
        raised = ("q3_k_s", "q3_k_m", "q4_k_s", "q4_k_m", *_IQ4)
        return "Q5_K" if quant in raised else base
    return {"q3_k_m": "Q4_K", "q3_k_l": "Q5_K"}.get(quant, base)


def _more_bits(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
