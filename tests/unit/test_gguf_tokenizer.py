"""What is read from tokenizer.json: names by structure, token types, refusals."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.tokenizer import pre_tokenizer_name, read_vocabulary
from forge_cli.models.pretokenizers import IGNORE_MERGES, NORMALIZERS, PRE_TOKENIZERS
from tiny_gguf import save_tokenizer


def document(pre: str) -> dict[str, Any]:
    return {
        "model": {"type": "BPE", "ignore_merges": pre in IGNORE_MERGES},
        "pre_tokenizer": copy.deepcopy(PRE_TOKENIZERS[pre]),
        "normalizer": NORMALIZERS.get(pre),
    }


# As the models' own files have them.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PUBLISHED = {
    "qwen2": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
             "use_regex": False},
        ],
    },
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        ],
    },
    "gpt-2": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
}  # fmt: skip


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_known_pre_tokeniser_is_found_by_its_structure(pre: str) -> None:
    assert pre_tokenizer_name(document(pre)) == pre


@pytest.mark.parametrize("pre", PUBLISHED)
def test_published_files_are_recognised(pre: str) -> None:
    assert pre_tokenizer_name({**document(pre), "pre_tokenizer": PUBLISHED[pre]}) == pre


def change(path: str, value: Any) -> dict[str, Any]:
    changed = document("qwen2")
    node: Any = changed
    *parents, leaf = path.split("/")
    for key in parents:
        node = node[int(key) if key.isdigit() else key]
    node[leaf] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("pre_tokenizer/pretokenizers/0/pattern", {"Regex": r"\p{N}{1,2}"}, "Split + ByteLevel"),
        ("pre_tokenizer/pretokenizers/0/behavior", "Removed", "unknown pre-tokeniser"),
        ("pre_tokenizer/pretokenizers/1/add_prefix_space", True, "unknown pre-tokeniser"),
        ("pre_tokenizer", {"type": "Metaspace", "replacement": "▁"}, "Metaspace"),
        ("pre_tokenizer", None, "none"),
        ("normalizer", {"type": "Lowercase"}, "Lowercase"),
        ("model/type", "Unigram", "Unigram"),
        ("model/ignore_merges", True, "ignore_merges"),
        ("model/end_of_word_suffix", "</w>", "end_of_word_suffix"),
    ],
)
def test_what_llama_cpp_would_read_otherwise_is_refused(path: str, value: Any, said: str) -> None:
    with pytest.raises(ForgeError, match=said.replace("+", r"\+")):
        pre_tokenizer_name(change(path, value))


def test_tokens_are_padded_typed_and_named(tmp_path: Path) -> None:
    count = save_tokenizer(tmp_path, "qwen2")
    found = read_vocabulary(tmp_path, {"vocab_size": count + 3})
    assert len(found.tokens) == len(found.types) == count + 3
    assert found.tokens[-1] == f"[PAD{count + 2}]"
    assert found.types[-3:] == [5, 5, 5]
    kinds = dict(zip(found.tokens, found.types, strict=True))
    assert kinds["<|im_start|>"] == 3
    assert kinds["<think>"] == 4
    assert kinds["Ġ"] == 1
    assert found.tokens[found.special["eos"]] == "<|im_end|>"
    assert found.tokens[found.special["pad"]] == "<|endoftext|>"
    assert found.add["bos"] is False
    assert all(merge.count(" ") == 1 for merge in found.merges)


def test_more_tokens_than_rows_is_refused(tmp_path: Path) -> None:
    count = save_tokenizer(tmp_path, "qwen2")
    with pytest.raises(ForgeError, match=f"'</think>' has id {count - 1}"):
        read_vocabulary(tmp_path, {"vocab_size": count - 1})


def test_bos_is_added_where_the_tokenizer_adds_it(tmp_path: Path) -> None:
    count = save_tokenizer(tmp_path, "llama-bpe")
    file = tmp_path / "tokenizer.json"
    parsed = json.loads(file.read_text())
    bos = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    parsed["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {},
    }
    file.write_text(json.dumps(parsed))
    settings = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    # The template has none: the model was trained without it.
    assert read_vocabulary(tmp_path, {"vocab_size": count}).add["bos"] is False
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0].content }}")
    assert read_vocabulary(tmp_path, {"vocab_size": count}).add["bos"] is True


def test_the_template_is_kept_to_the_byte(tmp_path: Path) -> None:
    count = save_tokenizer(tmp_path, "qwen2")
    exact = "{% for m in messages %}\r\n{{ m.content }}\n\n  {% endfor %}\n"
    (tmp_path / "chat_template.jinja").write_bytes(exact.encode())
    assert read_vocabulary(tmp_path, {"vocab_size": count}).chat_template == exact
    (tmp_path / "chat_template.jinja").unlink()
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": exact}]
    settings = {"eos_token": "<|im_end|>", "chat_template": named}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert read_vocabulary(tmp_path, {"vocab_size": count}).chat_template == exact


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ForgeError, match=r"tokenizer\.json: cannot be read"):
        read_vocabulary(tmp_path, {"vocab_size": 8})
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ForgeError, match=r"tokenizer\.json: not valid JSON"):
        read_vocabulary(tmp_path, {"vocab_size": 8})
