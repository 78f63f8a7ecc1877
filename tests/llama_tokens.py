"""One tokenizer.json as `tokenizers` reads it and as real llama.cpp does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from forge_cli.export.gguf import write_gguf
from forge_cli.models.llamacpp import LlamaCpp
from tiny_gguf import as_weights, random_weights, tiny_config


def ids_of(parsed: dict[str, Any], texts: list[str]) -> list[list[int]]:
    """Token ids of each text, without those put around it."""
    tokenizer = Tokenizer.from_str(json.dumps(parsed))
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def ids_of_llama_cpp(
    folder: Path, parsed: dict[str, Any], texts: list[str], *, eos: str, name: str = "tiny"
) -> list[list[int]]:
    """The same by llama.cpp, from a file of the smallest model that it loads."""
    (folder / "tokenizer.json").write_text(json.dumps(parsed))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1}
    rows = 1 + max(
        *parsed["model"]["vocab"].values(), *(token["id"] for token in parsed["added_tokens"])
    )
    config = tiny_config("llama", rows, **sizes, **heads)
    out = write_gguf(
        folder / "out.gguf", config=config, tokenizer_dir=folder, quant="f16", name=name,
        weights=as_weights(random_weights(config)),
    )  # fmt: skip
    with LlamaCpp(out, 8) as llama:
        return [llama.tokenize(text, False, True) for text in texts]
