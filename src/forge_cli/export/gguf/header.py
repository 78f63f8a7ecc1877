"""All of a GGUF file that stands before its tensors' data."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import IO, Any

_FORMATS = {
    "UINT8": "B", "INT8": "b", "UINT16": "H", "INT16": "h", "UINT32": "I", "INT32": "i",
    "FLOAT32": "f", "BOOL": "?", "UINT64": "Q", "INT64": "q", "FLOAT64": "d",
}  # fmt: skip


def write_header(writer: Any, stream: IO[bytes]) -> None:
    """Write what a gguf.GGUFWriter was told, up to where the first tensor begins.

    Its own way packs a vocabulary token by token; here a list is packed at once.
    """
    from gguf import WriterState

    # The writer would open the file by its final name; here it appears only when whole.
    writer.fout = [stream]
    writer.state = WriterState.EMPTY
    writer.write_header_to_file()
    for key, value in writer.kv_data[0].items():
        stream.write(_pack_text(key) + struct.pack("<I", value.type))
        if value.type.name == "ARRAY":
            stream.write(_pack_list(value.value, value.sub_type))
        else:
            stream.write(_pack([value.value], value.type.name))
    writer.state = WriterState.KV_DATA
    writer.write_ti_data_to_file()
    writer.write_padding(stream, stream.tell())


def _pack_list(values: Sequence[Any], kind: Any) -> bytes:
    from gguf import GGUFValueType

    kind = kind or GGUFValueType.get_type(values[0])
    return struct.pack("<IQ", kind, len(values)) + _pack(values, kind.name)


def _pack(values: Sequence[Any], kind: str) -> bytes:
    if kind == "STRING":
        return b"".join(map(_pack_text, values))
    return struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values)


def _pack_text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
