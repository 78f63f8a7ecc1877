"""What a GGUF file says, in few words: to compare files without keeping them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np

LONG = 16  # a longer array is told by its length and a digest


def facts(file: Path) -> dict[str, Any]:
    """`metadata`: key → [types, value]; `tensors`: name → [type, shape, layers, digest].

    Blocks are told together as `blk.*`; the digest is of the bytes, layer after layer. Of the
    factors of RoPE, which are computed, it is the values.
    """
    from gguf import GGUFReader

    reader = GGUFReader(file)
    metadata = {
        name: ["/".join(kind.name for kind in field.types), _short(field.contents())]
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    tensors: dict[str, list[Any]] = {}
    digests: dict[str, Any] = {}
    for tensor in sorted(reader.tensors, key=_by_layer):
        name = re.sub(r"^blk\.\d+\.", "blk.*.", tensor.name)
        told = [tensor.tensor_type.name, [int(n) for n in tensor.shape]]
        known = tensors.setdefault(name, [*told, 0, ""])
        assert known[:2] == told, f"{tensor.name} is not like that of the first block"
        known[2] += 1
        digests.setdefault(name, hashlib.sha256()).update(np.ascontiguousarray(tensor.data).data)
        if name.startswith("rope_"):
            known[3] = [float(value) for value in tensor.data]
    for name, digest in digests.items():
        tensors[name][3] = tensors[name][3] or digest.hexdigest()[:16]
    return {"metadata": metadata, "tensors": tensors}


def pieces_by_score(file: Path) -> str:
    """Digest of the order in which SentencePiece's pieces of two characters and more are merged."""
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    tokens, kinds, scores = (
        fields[f"tokenizer.ggml.{part}"].contents() for part in ("tokens", "token_type", "scores")
    )
    merged = [at for at, text in enumerate(tokens) if kinds[at] == 1 and len(text) > 1]
    return _digest(sorted(merged, key=lambda at: -scores[at]))


def _by_layer(tensor: Any) -> tuple[int, str]:
    found = re.match(r"blk\.(\d+)\.", tensor.name)
    return (int(found[1]) if found else -1), tensor.name


def _short(value: Any) -> Any:
    if not isinstance(value, list) or len(value) <= LONG:
        return value
    return {"length": len(value), "sha256": _digest(value)}


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
