"""What Forge writes against what llama.cpp's converter wrote of the same models.

The converter's side is tests/golden/gguf_metadata.json, made by make_gguf_metadata.py there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forge_cli.export.gguf import ARCHITECTURES, write_gguf
from gguf_facts import facts, pieces_by_score
from golden.make_gguf_metadata import CLASSES, FILE
from tiny_families import FAMILIES, SENTENCEPIECE, save_family
from tiny_gguf import as_weights

KNOWN = json.loads(FILE.read_text())
# Trained SentencePiece models keep a piece's number, tokenizer.json the place of its merge: both
# put the pieces in one order, which is all that llama.cpp looks at (`pieces_by_score`).
OTHERWISE = {"tokenizer.ggml.scores"}
# What Forge says beyond the converter: llama.cpp's own defaults, or what the config has.
EXTRA = {
    "attention.key_length", "attention.value_length", "vocab_size", "rope.freq_base",
    "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_space_prefix",
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_says_what_the_converter_says(tmp_path: Path, family: str) -> None:
    theirs = KNOWN[family]
    config, weights = save_family(tmp_path, family)
    out = write_gguf(
        tmp_path / "out.gguf", config=config, tokenizer_dir=tmp_path, weights=as_weights(weights),
        quant="f16", name="tiny",
    )  # fmt: skip
    ours = facts(out)
    metadata = {key: value for key, value in theirs["metadata"].items() if key not in OTHERWISE}
    if "tokenizer.ggml.add_bos_token" in metadata:
        # The tiny chat template writes none: a chat was trained without it, whatever the tokenizer
        # does with a bare text.
        metadata["tokenizer.ggml.add_bos_token"] = ["BOOL", False]
    assert {key: ours["metadata"].get(key) for key in metadata} == metadata
    arch = ours["metadata"]["general.architecture"][1]
    more = {key.removeprefix(f"{arch}.") for key in ours["metadata"].keys() - theirs["metadata"]}
    assert more <= EXTRA
    assert ("pieces" in theirs) is (FAMILIES[family][1] in SENTENCEPIECE)
    if "pieces" in theirs:
        assert pieces_by_score(out) == theirs["pieces"]
    check_tensors(ours["tensors"], theirs["tensors"])


def check_tensors(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Names, types, shapes, and bytes."""
    assert ours.keys() == theirs.keys()
    for name, told in theirs.items():
        # Computed in float32 there, in float64 here.
        content = pytest.approx(told[3], rel=3e-7) if name.startswith("rope_") else told[3]
        assert ours[name] == [*told[:3], content], name


def test_every_family_is_compared() -> None:
    assert set(KNOWN) == set(FAMILIES)
    assert {kind for kind, _, _ in FAMILIES.values()} == set(CLASSES) == set(ARCHITECTURES)
