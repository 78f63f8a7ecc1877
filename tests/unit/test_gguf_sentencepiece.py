"""Tokenizers made of SentencePiece models: pieces by hand, and what llama.cpp would read otherwise.

That llama.cpp cuts text into the same tokens is shown in tests/mlx/test_parity.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.sentencepiece import as_pieces, is_sentencepiece, prefixes_space
from forge_cli.export.gguf.tokenizer import read_vocabulary
from tiny_sentencepiece import SPACE, save_sentencepiece

REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPEND = {"type": "Prepend", "prepend": SPACE}


def document(**changes: Any) -> dict[str, Any]:
    model = {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "vocab": {}, "merges": []}
    return {"normalizer": REPLACE, "pre_tokenizer": None, "model": model, **changes}


def test_pieces_by_hand() -> None:
    found = document()
    found["model"]["merges"] = ["a b", ["ab", "c"], "a bc", f"{SPACE} {SPACE}"]
    tokens = ["<unk>", "<s>", "<0x0A>", "a", "ab", "abc", SPACE * 2, "[PAD7]"]
    types = [1, 3, 1, 1, 1, 1, 4, 5]
    texts, kinds, scores = as_pieces(found, tokens, types)
    assert texts == ["<unk>", "<s>", "<0x0A>", "a", "ab", "abc", "  ", "[PAD7]"]
    assert kinds == [2, 3, 6, 1, 1, 1, 4, 5]
    # Made by the first merge, the second (the third makes it too), and by none.
    assert scores == [-4, -1000, -4, -4, 0, -1, -1000, -10000]


@pytest.mark.parametrize(
    ("normalizer", "prefix"),
    [(REPLACE, False), ({"type": "Sequence", "normalizers": [PREPEND, REPLACE]}, True)],
)
def test_whether_a_space_goes_before_the_text(normalizer: dict[str, Any], prefix: bool) -> None:
    assert prefixes_space(document(normalizer=normalizer)) is prefix


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": None},
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Sequence", "normalizers": [REPLACE, PREPEND]}},
        {"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}},
    ],
)
def test_what_llama_cpp_would_read_otherwise_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ForgeError, match=r"tokenizer.json: SentencePiece with normalizer"):
        prefixes_space(document(**changes))


def test_byte_level_bpe_is_not_taken_for_it() -> None:
    assert is_sentencepiece(document())
    assert not is_sentencepiece(document(model={"type": "BPE", "byte_fallback": False}))
    assert not is_sentencepiece(document(model={"type": "Unigram", "byte_fallback": True}))


@pytest.mark.parametrize("prefix", [True, False])
def test_the_vocabulary_of_a_folder(tmp_path: Path, prefix: bool) -> None:
    count = save_sentencepiece(tmp_path, prefix=prefix)
    found = read_vocabulary(tmp_path, {"vocab_size": count + 1})
    assert (found.model, found.pre, found.space_prefix) == ("llama", "default", prefix)
    assert not found.merges and found.scores is not None and len(found.scores) == count + 1
    parsed = json.loads((tmp_path / "tokenizer.json").read_text())
    # The first merge is of the first piece, which then has the best score of all.
    best = found.tokens[found.scores.index(max(found.scores))]
    assert best == "".join(parsed["model"]["merges"][0]) or not prefix
    assert found.special["bos"] == found.tokens.index("<bos>")
