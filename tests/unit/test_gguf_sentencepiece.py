"""Tokenizers made of SentencePiece models: pieces by hand, and what llama.cpp would read otherwise.

That llama.cpp cuts a text of each family into the same tokens is shown in tests/mlx/test_parity.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.sentencepiece import as_pieces, is_sentencepiece, prefixes_space
from forge_cli.export.gguf.tokenizer import read_vocabulary
from llama_tokens import ids_of, ids_of_llama_cpp
from tiny_gguf import TEXTS
from tiny_sentencepiece import SPACE, save_sentencepiece

REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPEND = {"type": "Prepend", "prepend": SPACE}

METASPACE = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False}


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
        {"normalizer": None, "pre_tokenizer": METASPACE | {"prepend_scheme": "always"}},
        {"normalizer": None, "pre_tokenizer": METASPACE | {"split": True}},
        {"pre_tokenizer": METASPACE},
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


def tokenizer_json(folder: Path, *, prefix: bool = False) -> dict[str, Any]:
    save_sentencepiece(folder, prefix=prefix)
    return dict(json.loads((folder / "tokenizer.json").read_text()))


@pytest.mark.parametrize("scheme", ["first", "never"])
def test_spaces_of_mistral_7b(tmp_path: Path, scheme: str) -> None:
    parsed = tokenizer_json(tmp_path)
    parsed |= {"normalizer": None, "pre_tokenizer": METASPACE | {"prepend_scheme": scheme}}
    chats = [f"<bos>{text}" for text in TEXTS] + [
        "<|im_start|>user",
        "<|im_start|> a  b <|im_end|> c",
    ]
    texts = chats + (TEXTS if scheme == "never" else [])
    assert ids_of_llama_cpp(tmp_path, parsed, texts, eos="<|im_end|>") == ids_of(parsed, texts)


def as_phi3(parsed: dict[str, Any]) -> dict[str, Any]:
    """With Phi 3's special tokens, all but three of which swallow the white space after them."""
    renamed = {"<bos>": "<s>", "<eos>": "</s>", "<pad>": "<|endoftext|>"}
    vocab = parsed["model"]["vocab"]
    parsed["model"]["vocab"] = {renamed.get(text, text): at for text, at in vocab.items()}
    for token in parsed["added_tokens"]:
        token["content"] = renamed.get(token["content"], token["content"])
        token["rstrip"] = token["content"] not in ("<unk>", "<s>", "<|endoftext|>")
    parsed["post_processor"] = None
    return parsed


SPACED = [
    "<|im_start|>\nuser  hi <|im_end|>\n\n <|im_start|> \t x",
    "<s>  a<unk>  b</s>  c<|endoftext|>\n  d",
]


@pytest.mark.parametrize("name", ["my repository", "Phi-3-mini, tuned", "phi3"])
def test_tokens_that_swallow_white_space(tmp_path: Path, name: str) -> None:
    parsed = as_phi3(tokenizer_json(tmp_path, prefix=True))
    expected = ids_of(parsed, SPACED)
    found = ids_of_llama_cpp(tmp_path, parsed, SPACED, eos="<|im_end|>", name=name)
    assert found == expected
    for token in parsed["added_tokens"]:
        token["rstrip"] = False
    kept = ids_of(parsed, SPACED)
    assert kept != expected
    # A name that llama.cpp takes for Phi 3's is not left to a model that is not.
    assert ids_of_llama_cpp(tmp_path, parsed, SPACED, eos="<|im_end|>", name=name) == kept


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_other_tokens_that_take_text_along_are_refused(tmp_path: Path, flag: str) -> None:
    parsed = tokenizer_json(tmp_path)
    parsed["added_tokens"][-1][flag] = True
    with pytest.raises(ForgeError, match=r"tokenizer.json: token .* takes text beside it along"):
        ids_of_llama_cpp(tmp_path, parsed, [], eos="<|im_end|>")
