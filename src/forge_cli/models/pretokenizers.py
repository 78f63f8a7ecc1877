"""Byte-level BPE pre-tokenisers by the name that GGUF gives them (`tokenizer.ggml.pre`).

Each is the `pre_tokenizer` (and normaliser) of a `tokenizer.json`. Reading a GGUF looks
one up by name; writing one looks the name up by content. What is not here is an error:
a wrong pre-tokeniser gives fluent nonsense.
"""

from __future__ import annotations

from typing import Any

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _split(pattern: str) -> dict[str, Any]:
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(False)]}


PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": _byte_level(True),
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(True)],
    },
    "qwen2": _split(_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL),
    "llama-bpe": _split(_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL),
}

NORMALIZERS: dict[str, dict[str, Any] | None] = {"qwen2": {"type": "NFC"}}

# BPE models that take a whole word from the vocabulary before they try merges.
IGNORE_MERGES = {"llama-bpe"}
