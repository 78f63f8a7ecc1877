"""Byte-level BPE pre-tokenisers by the name that GGUF gives them (`tokenizer.ggml.pre`).

Each is the `pre_tokenizer` (and normaliser) of a `tokenizer.json`. Reading a GGUF looks
one up by name; writing one looks the name up by content. What is not here is an error:
a wrong pre-tokeniser gives fluent nonsense.
"""

from __future__ import annotations

from typing import Any

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT_4 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _split(*patterns: str) -> dict[str, Any]:
    splits = [
        {"type": "Split", "pattern": {"Regex": text}, "behavior": "Isolated", "invert": False}
        for text in patterns
    ]
    return {"type": "Sequence", "pretokenizers": [*splits, _byte_level(False)]}


PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt-2": _byte_level(True),
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(True)],
    },
    "qwen2": _split(_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL),
    "llama-bpe": _split(_GPT_4),
    "dbrx": _split(_GPT_4),
    "qwen35": _split(
        _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "deepseek-v3": _split(
        r"\p{N}{1,3}",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
        "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
        "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
    ),
    "minicpm5": _split(r"\p{N}{1,3}", _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+" + _TAIL),
    "bailingmoe": _split(
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+"
    ),
    "seed-coder": _split(
        _CONTRACTIONS + "|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\r\n]+"
        "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
    ),
}

NORMALIZERS: dict[str, dict[str, Any] | None] = {
    "qwen2": {"type": "NFC"}, "qwen35": {"type": "NFC"},
}  # fmt: skip

_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased_words(ending: str, digits: str) -> dict[str, Any]:
    """Words cut where a small letter is followed by a capital one."""
    start = r"[^\r\n\p{L}\p{N}]?"
    return _split(
        f"{start}{_UPPER}*{_LOWER}+{ending}|{start}{_UPPER}+{_LOWER}*{ending}|{digits}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


# Known, but llama.cpp has them only nearly; with what it cuts otherwise. That it still does is
# shown in tests/unit/test_pretokenizers.py. Export warns of it, and compares held-out text.
UNLIKE: dict[str, tuple[dict[str, Any], str]] = {
    "tekken": (
        _cased_words("", r"\p{N}"),
        "words with combining marks, and with capitals other than A-Z after the first letter",
    ),
    "gpt-4o": (
        _cased_words(_CONTRACTIONS + "?", r"\p{N}{1,3}"),
        "words with combining marks, and with capitals other than A-Z after the first letter",
    ),
    "deepseek-coder": (
        {
            "type": "Sequence",
            "pretokenizers": [
                *_split(
                    "[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+",
                    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
                )["pretokenizers"][:-1],
                {"type": "Digits", "individual_digits": True},
                _byte_level(False),
            ],
        },
        "words after a wide space",
    ),
}  # fmt: skip

# BPE models that take a whole word from the vocabulary before they try merges.
IGNORE_MERGES = {"llama-bpe", "minicpm5", "tekken"}
