"""Byte-level BPE pre-tokenisers: real llama.cpp cuts nasty text as `tokenizers` does.

The merges are learned on uncut text, so that some go over every place where a pre-tokeniser cuts:
a cut that llama.cpp makes elsewhere changes the ids.
"""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.tokenizer import pre_tokenizer_name
from forge_cli.models.pretokenizers import IGNORE_MERGES, PRE_TOKENIZERS, UNLIKE
from llama_tokens import ids_of, ids_of_llama_cpp
from tiny_gguf import CORPUS

EOS = "<|im_end|>"
NASTY = [
    "def parseHTTPServer2(x):\r\n\treturn x_1 ** 2  # 12345 naïve — 日本語\n\n\n    they'L\r\n",
    "1234567 12 345 3.14159 1,000,000 0xFF 1e-9 ２３４ ٣٤٥ ½ Ⅷ x² 100%  a1b22c333d4444",
    "  \t \n \n\n \t\tfoo   bar \u00a0 baz\u2003qux\n   \r\n\r\n  end   ",
    "camelCase XMLHttpRequest iOS ǅ ʰ ÀÉÎõü ŒUVRE straße ﬁne µm ÇA ñandú приветМир",
    "!!!??? ...,,; -->  <== && || :: ->> /* */ // ''' \"\"\" ``` $100 + 3 = x^2 ~ `a|b`  ~~~",
    "path/to/file.py:12 https://a.b/c?d=e&f#g\n// comment\n/// doc\n/* x */\n",
    "Привет, мир! Ελληνικά हिन्दी ไทยดี 한국어 조선 中文，标点。「引」 עברית العربيّة",
    "😀 👨\u200d👩\u200d👧 🇩🇪 e\u0301 a\u0300\u0301 \u200b\u200d\ufeff …“”‘’ – — × ÷ © ™",
    "don't DON'T 'tis 'S 'ſ rock'n'roll x's' ''s o'clock we'd'vE I'M",
    "a\u0001b\u007fc\u2028d\u0085e\u000bf\u000c",
]
PROBES = [part for text in NASTY for part in [text, *text.split("\n")]] + [
    CORPUS.read_text()[:2000]
]


@functools.cache
def uncut_merges() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1800,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[EOS],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*NASTY * 3, CORPUS.read_text()[:3000]], trainer)
    return json.dumps(json.loads(tokenizer.to_str())["model"])


def document(structure: Any, *, ignore_merges: bool = False) -> dict[str, Any]:
    """Without a normaliser: llama.cpp has none, and what NFC composes is another matter."""
    added = {"id": 0, "content": EOS, "special": True, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [added | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)],
        "normalizer": None, "pre_tokenizer": structure, "post_processor": None, "decoder": None,
        "model": json.loads(uncut_merges()) | {"ignore_merges": ignore_merges},
    }  # fmt: skip


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_llama_cpp_cuts_as_tokenizers_does(tmp_path: Path, pre: str) -> None:
    parsed = document(PRE_TOKENIZERS[pre], ignore_merges=pre in IGNORE_MERGES)
    assert pre_tokenizer_name(parsed) == pre
    expected = ids_of(parsed, PROBES)
    assert ids_of_llama_cpp(tmp_path, parsed, PROBES, eos=EOS) == expected
    # So that the test can fail: the cuts do change the ids.
    uncut = document(PRE_TOKENIZERS["qwen2"]["pretokenizers"][-1])
    assert sum(a != b for a, b in zip(ids_of(uncut, PROBES), expected, strict=True)) > 10


# What `UNLIKE` says is cut otherwise, and much else that is not.
OTHERWISE = {
    "tekken": ["हिन्दी", "e\u0301a\u0300", "приветМир"],
    "gpt-4o": ["हिन्दी", "e\u0301a\u0300", "приветМир"],
    "deepseek-coder": ["baz\u2003qux"],
}


@pytest.mark.parametrize("pre", UNLIKE)
def test_what_llama_cpp_cuts_otherwise(tmp_path: Path, pre: str) -> None:
    parsed = document(UNLIKE[pre][0], ignore_merges=pre in IGNORE_MERGES)
    assert pre_tokenizer_name(parsed) == pre
    # When the ids no longer differ, it belongs to the others.
    texts = [*OTHERWISE[pre], *PROBES]
    expected, found = ids_of(parsed, texts), ids_of_llama_cpp(tmp_path, parsed, texts, eos=EOS)
    same = [a == b for a, b in zip(expected, found, strict=True)]
    assert not any(same[: len(OTHERWISE[pre])])
    assert sum(same) > len(PROBES) - 10


@pytest.mark.parametrize("pre", ["qwen2", "dbrx", "seed-coder"])
def test_what_a_pattern_keeps_is_what_it_cuts(pre: str) -> None:
    """GPT-4's file, and with it Phi 4's, says that all between the words is removed: nothing is."""
    parsed = document(PRE_TOKENIZERS[pre])
    other = copy.deepcopy(parsed)
    split = other["pre_tokenizer"]["pretokenizers"][0]
    split |= {"behavior": "Removed", "invert": True}
    assert ids_of(other, PROBES) == ids_of(parsed, PROBES)
    assert pre_tokenizer_name(other) == pre
    split["invert"] = False
    with pytest.raises(ForgeError, match="unknown pre-tokeniser"):
        pre_tokenizer_name(other)
