"""The bytes that each token of a vocabulary stands for."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

_SPACE = "\u2581"  # SentencePiece's sign for one


def token_bytes(tokenizer: Any) -> list[bytes | None]:
    """By id, what a token adds to a text; None for those that control the model.

    Of byte-level BPE and of SentencePiece, whose text may begin with a space that is none of it.
    """
    backend = tokenizer.backend_tokenizer
    added = backend.get_added_tokens_decoder()
    level = '"ByteLevel"' in json.dumps(json.loads(backend.to_str())["decoder"])
    spell = _byte_level if level else _sentencepiece
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    found: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
    ends = set(tokenizer.eos_token_ids)
    for text, token in vocabulary.items():
        if token in ends or (token in added and added[token].special):
            continue
        # Added text stands as it is, but for SentencePiece's runs of spaces.
        found[token] = text.encode() if level and token in added else spell(text)
    return found


def _byte_level(text: str) -> bytes | None:
    signs = _signs()
    try:
        return bytes(signs[sign] for sign in text)
    except KeyError:
        return None


@cache
def _signs() -> dict[str, int]:
    """GPT-2's printable sign of each byte (`bytes_to_unicode` in its encoder.py)."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in own]
    return {chr(b): b for b in own} | {chr(256 + n): b for n, b in enumerate(rest)}


def _sentencepiece(text: str) -> bytes:
    if re.fullmatch("<0x[0-9A-F]{2}>", text):
        return bytes([int(text[3:5], 16)])
    return text.replace(_SPACE, " ").encode()
