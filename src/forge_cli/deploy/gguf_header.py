"""What a deployment needs to know from the head of a GGUF file.

Reads the key-value section alone, with the standard library: `gguf.GGUFReader` takes
seconds for a vocabulary of which two entries are of interest here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from forge_cli.core.errors import ForgeError, UsageError

# Value types of the GGUF specification, version 3, that have a fixed size.
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_LARGEST = 1 << 26  # bytes of one string, entries of one array: past it the file is broken


@dataclass(frozen=True)
class Header:
    """The facts of one GGUF file that its deployment depends on."""

    kind: str  # general.type: "model", "adapter", "mmproj" …
    architecture: str
    context_length: int | None
    short_context: int | None  # up to it a longrope model rotates otherwise than it was trained
    end_tokens: tuple[str, ...]  # text of the end-of-sequence and end-of-turn tokens
    template: str  # the chat template, in Jinja; empty if there is none
    bos: str  # text of the beginning-of-sequence token
    eos: str
    adds_bos: bool  # whether the runner puts it before every prompt by itself
    license: str  # such as apache-2.0; empty where the file names none
    provenance: Mapping[str, str]  # what Forge wrote of where it comes from: forge.*


class _Broken(Exception):
    pass


def read_header(path: Path) -> Header:
    """Read the header of `path`.

    Raises:
        UsageError: no such file. ForgeError: it is not GGUF, is cut short, or is unreadable.
    """
    try:
        with open(path, "rb") as stream:
            values = _key_values(stream)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", "make one with: forge export RUN") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a directory", "give the .gguf file in it") from None
    except OSError as error:
        raise ForgeError(f"{path}: cannot be read: {error.strerror}", "check the file") from None
    except _Broken as error:
        raise ForgeError(f"{path}: {error}", "export it again") from None
    return _header(values)


def _header(values: Mapping[str, Any]) -> Header:
    architecture = str(values.get("general.architecture", ""))
    context = values.get(f"{architecture}.context_length")
    tokens = values.get("tokenizer.ggml.tokens", [])

    def text_of(role: str) -> str:
        index = values.get(f"tokenizer.ggml.{role}_token_id")
        return str(tokens[index]) if isinstance(index, int) and index < len(tokens) else ""

    # What llama.cpp takes where the file says nothing.
    adds = values.get("tokenizer.ggml.model") == "llama"
    return Header(
        kind=str(values.get("general.type", "model")),
        architecture=architecture,
        context_length=context if isinstance(context, int) else None,
        short_context=_short_context(values, architecture),
        end_tokens=tuple(dict.fromkeys(filter(None, (text_of("eos"), text_of("eot"))))),
        template=str(values.get("tokenizer.chat_template") or ""),
        bos=text_of("bos"),
        eos=text_of("eos"),
        adds_bos=bool(values.get("tokenizer.ggml.add_bos_token", adds)),
        license=str(values.get("general.license") or ""),
        provenance={k: str(v) for k, v in values.items() if k.startswith("forge.")},
    )


def _short_context(values: Mapping[str, Any], architecture: str) -> int | None:
    # Only Phi has factors of both kinds, of which llama.cpp takes one by the context; mlx-lm trains
    # with the long ones whatever the context.
    found = values.get(f"{architecture}.rope.scaling.original_context_length")
    whole = values.get(f"{architecture}.context_length")
    longer = isinstance(found, int) and isinstance(whole, int) and whole > found
    return found if longer and architecture == "phi3" else None


def _key_values(stream: IO[bytes]) -> dict[str, Any]:
    if stream.read(4) != b"GGUF":
        raise _Broken("not a GGUF file")
    version, _, count = _unpack(stream, "IQQ")
    if version not in (2, 3):
        raise _Broken(f"GGUF version {version} is not one that Forge reads (2, 3)")
    values = {}
    for _ in range(count):
        key = _string(stream)
        values[key] = _value(stream, _unpack(stream, "I")[0])
    return values


def _value(stream: IO[bytes], kind: int) -> Any:
    if kind == _STRING:
        return _string(stream)
    if kind != _ARRAY:
        return _unpack(stream, _scalar(kind))[0]
    kind, length = _unpack(stream, "IQ")
    if length > _LARGEST:
        raise _Broken("the GGUF header is broken")
    if kind == _STRING:
        return [_string(stream) for _ in range(length)]
    return list(_unpack(stream, f"{length}{_scalar(kind)}"))


def _scalar(kind: int) -> str:
    if kind not in _SCALARS:
        raise _Broken(f"the GGUF header is broken (value type {kind})")
    return _SCALARS[kind]


def _string(stream: IO[bytes]) -> str:
    return _read(stream, _unpack(stream, "Q")[0]).decode(errors="replace")


def _unpack(stream: IO[bytes], layout: str) -> tuple[Any, ...]:
    layout = f"<{layout}"
    return struct.unpack(layout, _read(stream, struct.calcsize(layout)))


def _read(stream: IO[bytes], size: int) -> bytes:
    if size > 8 * _LARGEST:
        raise _Broken("the GGUF header is broken")
    data = stream.read(size)
    if len(data) != size:
        raise _Broken("the GGUF file is cut short")
    return data
