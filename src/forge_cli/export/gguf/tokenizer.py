"""A `tokenizer.json` and its chat template, as GGUF metadata.

Source: llama.cpp `conversion/base.py` (`get_vocab_base`, `get_vocab_base_pre`). Which regular
expression llama.cpp splits words of byte-level BPE with is one name, `tokenizer.ggml.pre`; here it
is found by the structure of the pre-tokeniser, and an unknown one is an error: a wrong name gives
fluent nonsense. Other BPE: see `sentencepiece`.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.sentencepiece import as_pieces, is_sentencepiece, prefixes_space
from forge_cli.export.gguf.stripping import strips_as_phi3
from forge_cli.models.pretokenizers import IGNORE_MERGES, NORMALIZERS, PRE_TOKENIZERS, UNLIKE

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # gguf.TokenType
_HINT = "use a model whose tokenizer is BPE of a known kind"
# llama.cpp treats added tokens of these shapes as control tokens, flagged or not.
_CONTROL_SHAPES = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
_CONTROL_TEXTS = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"}


@dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp must know to read and write the model's text.

    Args:
        model: how text is cut: "gpt2" (byte-level BPE) or "llama" (SentencePiece).
        pre: name of the pre-tokeniser.
        tokens, types: one for each row of the embedding.
        scores: of SentencePiece, one for each token: the highest is merged first.
        space_prefix: whether a text is read as if a space stood before it.
        strips_as_phi3: see `stripping`.
        special: token ids by role: bos, eos, unk, pad …
        add: by role, whether that token is put around a text.
        chat_template: Jinja, exactly as trained; empty if there is none.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    special: dict[str, int]
    add: dict[str, bool]
    chat_template: str
    scores: list[float] | None = None
    space_prefix: bool = False
    strips_as_phi3: bool = False


@contextmanager
def _no_collection() -> Iterator[None]:
    """A vocabulary is a million objects: to collect amid them is to walk all modules each time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@_no_collection()
def read_vocabulary(folder: Path, config: Mapping[str, Any]) -> Vocabulary:
    """Read tokenizer.json, tokenizer_config.json and the chat template in `folder`.

    Raises:
        ForgeError: a file is missing or broken, the tokenizer is not byte-level BPE with a
            known pre-tokeniser nor like SentencePiece, or it has more tokens than the model.
    """
    from gguf import SpecialVocab

    file = folder / "tokenizer.json"
    document = _read_json(file)
    size = int(config["vocab_size"])
    tokens, types = _tokens(document, size, str(file))
    scores, prefix = None, False
    if is_sentencepiece(document):
        model, pre = "llama", "default"
        prefix = prefixes_space(document, str(file))
        tokens, types, scores = as_pieces(document, tokens, types)
    else:
        model, pre = "gpt2", pre_tokenizer_name(document, str(file))
    known = SpecialVocab(folder, n_vocab=size)
    special, add = dict(known.special_token_ids), dict(known.add_special_token)
    for role in ("bos", "eos"):
        ids = config.get(f"{role}_token_id")
        first = ids[0] if isinstance(ids, list) and ids else ids
        if isinstance(first, int) and first < size:
            special.setdefault(role, first)
    if "eos" not in special:
        raise ForgeError(f"{folder}: no end-of-sequence token is named", "set eos_token")
    # Absent, llama.cpp has its own default by pre-tokeniser.
    add.setdefault("bos", False)
    merges = _merges(document) if model == "gpt2" else []
    template = read_template(folder)
    if "bos" not in special or (template and not _writes(template, tokens[special["bos"]])):
        # Chats were trained without it: llama.cpp would put it before each.
        add["bos"] = False
    return Vocabulary(
        model, pre, tokens, types, merges, special, add, template, scores, prefix,
        strips_as_phi3(document, str(file)),
    )  # fmt: skip


def add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    """Write the vocabulary as GGUF metadata (`writer`: gguf.GGUFWriter)."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is None:
        writer.add_token_merges(vocabulary.merges)
    else:
        writer.add_token_scores(vocabulary.scores)
    writer.add_add_space_prefix(vocabulary.space_prefix)
    for role, token in vocabulary.special.items():
        if handler := getattr(writer, f"add_{role}_token_id", None):
            handler(token)
    for role, flag in vocabulary.add.items():
        if handler := getattr(writer, f"add_add_{role}_token", None):
            handler(flag)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def pre_tokenizer_name(document: Mapping[str, Any], where: str = "tokenizer.json") -> str:
    """llama.cpp's name for the pre-tokeniser of a parsed tokenizer.json.

    Raises:
        ForgeError: not byte-level BPE, or no name is known for it.
    """
    model = document.get("model") or {}
    if model.get("type") != "BPE":
        kind = model.get("type")
        raise ForgeError(f"{where}: a {kind} tokenizer cannot be exported to GGUF yet", _HINT)
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise ForgeError(f"{where}: BPE with {key} cannot be exported to GGUF", _HINT)
    structure = _essence(document.get("pre_tokenizer"))
    ignores = bool(model.get("ignore_merges"))
    known = PRE_TOKENIZERS | {name: unlike for name, (unlike, _) in UNLIKE.items()}
    same = [name for name, own in known.items() if _essence(own) == structure]
    for name in same:
        if ignores != (name in IGNORE_MERGES):
            continue
        # llama.cpp never normalises; Unicode's NFC is what it lets pass for some.
        if document.get("normalizer") not in (None, NORMALIZERS.get(name)):
            raise ForgeError(
                f"{where}: normalizer {document['normalizer'].get('type')} is not one that "
                f"llama.cpp applies for {name}",
                _HINT,
            )
        return name
    if same:
        raise ForgeError(
            f"{where}: ignore_merges is {ignores}, llama.cpp's {same[0]} has it otherwise", _HINT
        )
    raise ForgeError(
        f"{where}: unknown pre-tokeniser {_describe(document.get('pre_tokenizer'))}",
        f"known: {', '.join(known)}",
    )


def read_template(folder: Path) -> str:
    """The chat template in `folder`, exactly; empty if there is none.

    chat_template.jinja goes before tokenizer_config.json, as in transformers.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_bytes().decode("utf-8")
    file = folder / "tokenizer_config.json"
    template = _read_json(file).get("chat_template") if file.is_file() else None
    if isinstance(template, list):  # several, by name
        template = next((t["template"] for t in template if t.get("name") == "default"), None)
    return template if isinstance(template, str) else ""


def _writes(template: str, bos: str) -> bool:
    """Whether a chat template begins with BOS: it names the token, or the variable for it."""
    return "bos_token" in template or bos in template


def _tokens(document: Mapping[str, Any], size: int, where: str) -> tuple[list[str], list[int]]:
    texts = {index: token for token, index in document["model"]["vocab"].items()}
    types = dict.fromkeys(texts, _NORMAL)
    for added in document.get("added_tokens") or []:
        text, index = added["content"], added["id"]
        texts[index] = text
        types[index] = _CONTROL if added["special"] or _looks_control(text) else _USER_DEFINED
    if (largest := max(texts, default=-1)) >= size:
        raise ForgeError(
            f"{where}: token {texts[largest]!r} has id {largest}, the model has {size} rows",
            "use the tokenizer that the model was trained with",
        )
    ids = range(size)
    return [texts.get(i, f"[PAD{i}]") for i in ids], [types.get(i, _UNUSED) for i in ids]


def _merges(document: Mapping[str, Any]) -> list[str]:
    """The merges as "left right"; a space inside of one is written as byte-level BPE writes it."""
    merges = document["model"].get("merges") or []
    if merges and isinstance(merges[0], str):
        return list(merges)
    return [" ".join(part.replace(" ", "Ġ") for part in pair) for pair in merges]


def _looks_control(text: str) -> bool:
    shaped = any(text.startswith(start) and text.endswith(end) for start, end in _CONTROL_SHAPES)
    return shaped or text in _CONTROL_TEXTS


def _essence(node: Any) -> Any:
    """A pre-tokeniser without what cannot change token ids."""
    if isinstance(node, list):
        return [_essence(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "Sequence" and len(node["pretokenizers"]) == 1:
        return _essence(node["pretokenizers"][0])
    if node.get("type") == "Sequence" and len(node["pretokenizers"]) == 2:
        first, second = node["pretokenizers"]
        # All known patterns that stand alone match whatever there is: what they keep of a text is
        # what they cut it into.
        if (first.get("behavior"), first.get("invert")) == ("Removed", True):
            first = {**first, "behavior": "Isolated", "invert": False}
        node = {**node, "pretokenizers": [first, second]}
    if node.get("type") == "ByteLevel":
        node = {"add_prefix_space": True, "use_regex": True, **node}
    return {key: _essence(value) for key, value in node.items() if key != "trim_offsets"}


def _describe(node: Any) -> str:
    digest = hashlib.sha256(json.dumps(_essence(node), sort_keys=True).encode()).hexdigest()[:8]
    if not isinstance(node, dict):
        return f"none ({digest})"
    parts = node.get("pretokenizers") or [node]
    return f"{' + '.join(str(part.get('type')) for part in parts)} ({digest})"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ForgeError(
            f"{file}: cannot be read: {error.strerror}", "the model needs its tokenizer.json"
        ) from None
    except (ValueError, TypeError) as error:
        raise ForgeError(f"{file}: not valid JSON: {error}", "take the tokenizer again") from None
