"""Added tokens that take the white space beside them along, as Phi 3's do with `<|user|>`.

A GGUF file cannot say it. llama.cpp knows Phi 3 by the model's name, and then lets all added
tokens but three swallow what follows them. Source: llama.cpp `src/llama-vocab.cpp`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from forge_cli.core.errors import ForgeError

_NOT_OF_PHI3 = {"<unk>", "<s>", "<|endoftext|>"}
_NEEDED = {*_NOT_OF_PHI3, "</s>"}  # llama.cpp looks them up
_PHI3 = re.compile("phi-?3", re.IGNORECASE)


def strips_as_phi3(document: Mapping[str, Any], where: str = "tokenizer.json") -> bool:
    """Whether the added tokens of a parsed tokenizer.json swallow white space as Phi 3's do.

    Raises:
        ForgeError: they do it in a way that llama.cpp does not know.
    """
    added = document.get("added_tokens") or []
    strips = {token["content"] for token in added if token.get("rstrip")}
    other = [t["content"] for t in added if t.get("lstrip") or t.get("single_word")]
    names = {token["content"] for token in added}
    if not strips and not other:
        return False
    if not other and strips == names - _NOT_OF_PHI3 and names >= _NEEDED:
        return True
    raise ForgeError(
        f"{where}: token {(other or sorted(strips))[0]!r} takes text beside it along, "
        "which llama.cpp does not know of this model",
        "use a model whose added tokens have lstrip, rstrip and single_word false",
    )


def known_name(name: str, phi3: bool) -> str:
    """`name`, changed as little as makes llama.cpp treat added tokens as it must."""
    if phi3:
        return name if _PHI3.search(name) else f"{name} (Phi-3)"
    return _PHI3.sub(lambda found: f"{found[0][:3]} 3", name)
