"""A `tokenizer.json` that was made of a SentencePiece model, as llama.cpp's "llama" vocabulary.

Source: llama.cpp `conversion/base.py` (`_create_vocab_sentencepiece`), `src/llama-vocab.cpp`
(`llm_tokenizer_spm`). SentencePiece merges the two neighbours whose union has the best score; in
tokenizer.json the same order stands as a list of merges, so a token's score is the place of the
first merge that makes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from forge_cli.core.errors import ForgeError

SPACE = "\u2581"  # what SentencePiece writes for a space
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # gguf.TokenType
_ADDED_SCORE, _UNUSED_SCORE = -1000.0, -10000.0
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND = {"type": "Prepend", "prepend": SPACE}
# Cuts nothing, as no space is left: in the tokenizers of Gemma.
_IDLE = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
# Spaces replaced, nothing cut: in those of Mistral 7B.
_METASPACE = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": None, "split": False}


def is_sentencepiece(document: Mapping[str, Any]) -> bool:
    """Whether bytes stand for what has no token of its own, which byte-level BPE never needs."""
    model = document.get("model") or {}
    return model.get("type") == "BPE" and bool(model.get("byte_fallback"))


def prefixes_space(document: Mapping[str, Any], where: str = "tokenizer.json") -> bool:
    """Whether a text is read as if a space stood before it, also after an added token.

    Raises:
        ForgeError: text is changed or cut in a way that llama.cpp does not know.
    """
    before = document.get("pre_tokenizer") or _IDLE
    scheme = before.get("prepend_scheme")
    uncut = document.get("normalizer") is None and {**before, "prepend_scheme": None} == _METASPACE
    if uncut and scheme in ("first", "never"):
        # "first" puts a space before a text that no token precedes. llama.cpp would put one after
        # every token, and a chat begins with one.
        return False
    if {key: before.get(key) for key in _IDLE} == _IDLE:
        normalizer = document.get("normalizer") or {}
        steps = normalizer.get("normalizers") or [normalizer]
        if steps in ([_REPLACE], [_PREPEND, _REPLACE]):
            return len(steps) == 2
    kinds = [str((document.get(key) or {}).get("type")) for key in ("normalizer", "pre_tokenizer")]
    raise ForgeError(
        f"{where}: SentencePiece with normalizer {kinds[0]} and pre-tokeniser {kinds[1]} cannot be "
        "exported to GGUF yet",
        "supported: spaces replaced, with or without one before the text",
    )


def as_pieces(
    document: Mapping[str, Any], tokens: list[str], types: list[int]
) -> tuple[list[str], list[int], list[float]]:
    """Tokens, types and scores as llama.cpp reads them from a SentencePiece model.

    Args:
        tokens, types: one for each row of the embedding, as byte-level BPE would have them.
    """
    model = document["model"]
    rank: dict[str, int] = {}
    for place, merge in enumerate(model["merges"]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        rank.setdefault(left + right, place)
    texts, kinds, scores = list(tokens), list(types), []
    for at, (text, kind) in enumerate(zip(tokens, types, strict=True)):
        score = -float(rank.get(text, len(model["merges"])))
        if kind == _NORMAL and re.fullmatch("<0x[0-9A-F]{2}>", text):
            kinds[at] = _BYTE
        elif kind == _NORMAL and text == model.get("unk_token"):
            kinds[at] = _UNKNOWN
        elif kind == _USER_DEFINED:
            # llama.cpp looks for these in the text before it replaces spaces.
            texts[at], score = text.replace(SPACE, " "), _ADDED_SCORE
        elif kind == _CONTROL:
            score = _ADDED_SCORE
        elif kind == _UNUSED:
            score = _UNUSED_SCORE
        scores.append(score)
    return texts, kinds, scores
