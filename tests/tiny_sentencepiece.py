"""A tiny tokenizer as transformers makes it of a SentencePiece model: of Gemma, of Mistral."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_gguf import CORPUS, TEMPLATE, TEXTS

SPACE = "\u2581"
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<|im_start|>", "<|im_end|>"]
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_BOS = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
_SPLIT = {
    "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
}  # fmt: skip


def save_sentencepiece(folder: Path, *, prefix: bool) -> int:
    """Train and save a tokenizer; returns its number of tokens.

    Args:
        prefix: a space is put before each text, as Llama 2 and Mistral do and Gemma does not.
    """
    # Gemma's runs of spaces are tokens that the user defined: they go before all other pieces.
    runs = [] if prefix else [SPACE * 2, SPACE * 4]
    pieces = [*runs, *(piece for piece in train_pieces(400) if piece not in runs)]
    vocabulary = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    ids = {piece: at for at, piece in enumerate(vocabulary)}
    # Every way to put a piece together, by the order of the pieces: as transformers converts.
    merges = [
        [piece[:cut], piece[cut:]]
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    steps = [{"type": "Prepend", "prepend": SPACE}, _REPLACE]
    added = [*((text, True) for text in SPECIAL), *((text, False) for text in runs)]
    for text, _ in added:
        ids.setdefault(text, len(ids))
    document = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": ids[text], "content": text, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": special,
            }
            for text, special in added
        ],
        "normalizer": {"type": "Sequence", "normalizers": steps} if prefix else _REPLACE,
        "pre_tokenizer": None if prefix else _SPLIT,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [_BOS, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": None,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
            "byte_fallback": True, "ignore_merges": False, "vocab": ids, "merges": merges,
        },
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(document))
    settings = {"bos_token": "<bos>", "eos_token": "<|im_end|>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return len(ids)


def train_pieces(count: int) -> list[str]:
    """Pieces in the order in which they are merged, single characters last."""
    from tokenizers import Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import Split

    corpus = [*TEXTS, CORPUS.read_text()]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = Split(SPACE, "merged_with_next")
    tokenizer.train_from_iterator(
        [text.replace(" ", SPACE) for text in corpus],
        trainers.BpeTrainer(vocab_size=count, show_progress=False),
    )
    found = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    long = [piece for piece, _ in found if len(piece) > 1]
    # Without 日本語, so that some characters are spelled in bytes.
    return long + [piece for piece, _ in found if len(piece) == 1 and piece < "\u2600"]
