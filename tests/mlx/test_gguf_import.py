"""GGUF in: the same tokens and the same function as llama.cpp has from the same file."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from forge_cli.core import events
from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf import write_gguf
from forge_cli.export.parity import divergence
from forge_cli.models import gguf_import
from forge_cli.models.gguf_import import import_gguf
from forge_cli.models.llamacpp import LlamaCpp
from forge_cli.models.load import load_dense
from tiny_gguf import TEXTS, as_weights, random_weights, save_tokenizer, smollm2, tiny_config
from tiny_train import logits

CODE = inspect.getsource(events)
LONG = [CODE[:1500], "\n".join(TEXTS) * 2]
# The other pre-tokenisers are read from the same table: see tests/unit/test_pretokenizers.py.
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "llama-bpe", {}),
    "llama, tied, with biases": (
        "llama", "smollm", {"tie_word_embeddings": True, "attention_bias": True},
    ),
    "llama 3 rope": (
        "llama", "gpt-2", {"rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        }},
    ),
    "linear rope": ("llama", "gpt-2", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "qwen2, yarn": (
        "qwen2", "qwen2", {"rope_scaling": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
        }},
    ),
    "qwen3": ("qwen3", "qwen2", {"rope_theta": 1e6}),
}  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tiny_file(folder: Path, family: str = "llama", **changes: Any) -> Path:
    kind, pre, own = FAMILIES[family]
    small = {"hidden_size": 128, "intermediate_size": 192, **own, **changes}
    config = tiny_config(kind, save_tokenizer(folder, pre), **small)
    return write_gguf(
        folder / "tiny.gguf", config=config, tokenizer_dir=folder,
        weights=as_weights(random_weights(config)), quant="f16", name="tiny",
    )  # fmt: skip


def half_copy(file: Path, target: Path) -> Path:
    """The same file with its weights in float16, by gguf alone.

    llama.cpp multiplies 4-bit weights with activations that it rounds to 8 bits; with
    float16 weights it computes the function that the file describes.
    """
    reader = gguf.GGUFReader(str(file))
    writer = gguf.GGUFWriter(str(target), "llama")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        value = gguf.dequantize(tensor.data, tensor.tensor_type)
        kind = np.float16 if value.ndim > 1 else np.float32
        writer.add_tensor(tensor.name, np.ascontiguousarray(value.astype(kind)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_smollm2_has_the_tokens_and_the_function_of_llama_cpp(tmp_path: Path) -> None:
    file = smollm2()
    loaded = load_dense("smollm2-135m")
    texts = [*TEXTS, *LONG, "", " ", "1234567890", "x\u00a0y\u2028z 🦙 👩‍💻", "a\r\n\r\n\tb  c"]
    with LlamaCpp(file, 1024) as llama:
        for text in texts:
            ids = list(loaded.tokenizer.encode(text, add_special_tokens=False))
            assert ids == llama.tokenize(text, False, True), text
        prompts = [llama.tokenize(text, False, True) for text in LONG]
        ours = [logits(loaded.model, ids) for ids in prompts]
        original = np.mean(divergences(ours, [llama.logits(ids) for ids in prompts]), axis=1)
    with LlamaCpp(half_copy(file, tmp_path / "half.gguf"), 1024) as llama:
        exact = np.mean(divergences(ours, [llama.logits(ids) for ids in prompts]), axis=1)
    assert sum(map(len, prompts)) > 500
    # Mean KL and agreement on the likeliest token.
    assert original[0] < 0.02 and original[1] >= 0.94, original
    assert exact[0] < 1e-4 and exact[1] >= 0.99, exact


def divergences(ours: list[np.ndarray], theirs: list[np.ndarray]) -> list[np.ndarray]:
    """KL and agreement at every position of all prompts."""
    pairs = [divergence(a, b) for a, b in zip(ours, theirs, strict=True)]
    return [np.concatenate(part) for part in zip(*pairs, strict=True)]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_tokens_and_the_function_of_llama_cpp(
    tmp_path: Path, family: str
) -> None:
    file = tiny_file(tmp_path, family)
    loaded = load_dense(str(file))
    ours, theirs = [], []
    with LlamaCpp(file, 512) as llama:
        for text in [*TEXTS, TEXTS[1] * 3]:
            ids = list(loaded.tokenizer.encode(text, add_special_tokens=False))
            assert ids == llama.tokenize(text, False, True)
            ours.append(logits(loaded.model, ids))
            theirs.append(llama.logits(ids))
    kl, same = divergences(ours, theirs)
    assert len(kl) > 200
    assert kl.max() < 1e-4
    assert same.mean() >= 0.98  # random weights have near ties; the KL is the sharper test


def test_an_import_happens_once(tmp_path: Path, cache: Path) -> None:
    file = tiny_file(tmp_path)
    folder = import_gguf(file)
    assert folder.is_relative_to(cache)
    assert sorted(path.name for path in folder.iterdir()) == [
        "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert import_gguf(file) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    # The content decides, not the name or the place.
    moved = tmp_path / "elsewhere" / "tiny.gguf"
    moved.parent.mkdir()
    moved.write_bytes(file.read_bytes())
    assert import_gguf(moved) == folder
    moved.write_bytes(tiny_file(tmp_path, rope_theta=500.0).read_bytes())
    assert import_gguf(moved) != folder


def test_a_failed_import_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tiny_file(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(gguf_import, "_save_tokenizer", full)
        with pytest.raises(ForgeError, match="cannot write: No space left") as error:
            import_gguf(file)
    assert "free some space" in error.value.hint
    assert list((cache / "models").iterdir()) == []
    assert (import_gguf(file) / "config.json").is_file()


def test_two_imports_at_once_agree(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tiny_file(tmp_path)
    save = gguf_import._save_tokenizer
    first: list[Path] = []

    def late(*arguments: Any) -> None:
        save(*arguments)
        if not first:
            first.append(Path())
            first[0] = import_gguf(file)  # another process, in between

    monkeypatch.setattr(gguf_import, "_save_tokenizer", late)
    assert import_gguf(file) == first[0]
    assert list((cache / "models").iterdir()) == first


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.05, 0.5, 0.999])
def test_a_truncated_file_is_named(tmp_path: Path, share: float) -> None:
    file = tiny_file(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ForgeError, match=r"tiny\.gguf: not a readable GGUF"):
        import_gguf(file)


@pytest.mark.usefixtures("cache")
def test_noise_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "noise.gguf"
    for content in (
        b"not a gguf at all" * 50,
        b"GGUF" + bytes(64),
        b"GGUF\x03\0\0\0" + b"\xff" * 99,
    ):
        file.write_bytes(content)
        with pytest.raises(ForgeError, match=r"noise\.gguf: "):
            import_gguf(file)


Write = Callable[[gguf.GGUFWriter], None]


def handmade(file: Path, arch: str, write: Write) -> Path:
    writer = gguf.GGUFWriter(str(file), arch)
    write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def header(writer: gguf.GGUFWriter, pre: str = "gpt-2") -> None:
    writer.add_block_count(1)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_context_length(64)
    writer.add_token_list(["a", "b"])
    writer.add_token_types([1, 1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_merges([])


def tensor(name: str, value: float = 0.0) -> Write:
    return lambda writer: writer.add_tensor(name, np.full((2, 64), value, np.float32))


REFUSED: dict[str, tuple[str, list[Write], str]] = {
    "architecture": ("mamba", [header], "architecture mamba is not supported"),
    "no layers": ("llama", [], "has no llama.attention.head_count"),
    "tensor": ("llama", [header, tensor("blk.0.ffn_exps")], "tensor blk.0.ffn_exps is unknown"),
    "tokenizer": (
        "llama", [lambda w: header(w, "tekken")], "tokenizer gpt2/tekken is not supported",
    ),
    "overflow": ("llama", [header, tensor("output.weight", 1e6)], "values beyond float16"),
    "rope": (
        "llama", [header, lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)],
        "rope scaling longrope is not supported",
    ),
    "partial rope": (
        "llama", [header, lambda w: w.add_rope_dimension_count(16)], "partial rotary embedding",
    ),
    "rope factors": (
        "llama",
        [header, lambda w: w.add_tensor("rope_freqs.weight", np.linspace(1, 5, 16, dtype="f4"))],
        "rope factors are not Llama 3's",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_exactly_is_refused_by_name(tmp_path: Path, case: str) -> None:
    arch, parts, message = REFUSED[case]
    file = handmade(tmp_path / "odd.gguf", arch, lambda w: [part(w) for part in parts])
    with pytest.raises(ForgeError) as error:
        import_gguf(file)
    assert f"{file}: " in error.value.message
    assert message in error.value.message
    assert error.value.hint


def test_bos_is_put_first_where_the_file_says_so(tmp_path: Path, cache: Path) -> None:
    file = tiny_file(tmp_path)
    reader = gguf.GGUFReader(str(file))
    added = reader.fields.get("tokenizer.ggml.add_bos_token")
    folder = import_gguf(file)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["add_bos_token"] == bool(added and added.contents())
