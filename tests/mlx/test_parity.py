"""Tiny random models of each family: MLX against real llama.cpp."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.export.gguf import Weight, write_gguf
from forge_cli.export.gguf.names import rotate
from forge_cli.export.parity import compare, divergence, next_losses
from forge_cli.models.backend import mx
from forge_cli.models.llamacpp import LlamaCpp
from tiny_families import FAMILIES, save_family
from tiny_gguf import TEXTS, as_weights, encode, random_weights, save_tokenizer, tiny_config

Q8_0 = GGMLQuantizationType.Q8_0
Logits = Callable[[list[int]], np.ndarray]


def mlx_model(config: dict[str, Any], weights: dict[str, np.ndarray]) -> Logits:
    kind = {"mistral": "llama"}.get(config["model_type"], config["model_type"])
    family = importlib.import_module(f"mlx_lm.models.{kind}")
    model = family.Model(family.ModelArgs.from_dict(config))
    arrays = {name: mx.array(value) for name, value in weights.items()}
    if hasattr(model, "sanitize"):
        arrays = model.sanitize(arrays)
    model.load_weights(list(arrays.items()))
    return lambda ids: np.array(model(mx.array([ids]))[0])


def prompts(folder: Path) -> list[tuple[str, list[int]]]:
    return [(text, encode(folder, text)) for text in [*TEXTS, TEXTS[1] * 4]]


def build(
    folder: Path, family: str, quant: str = "f16", *, vocab_extra: int = 5
) -> tuple[Path, Logits, dict[str, Any], dict[str, np.ndarray]]:
    config, weights = save_family(folder, family, vocab_extra=vocab_extra)
    out = write_gguf(
        folder / "model.gguf", config=config, tokenizer_dir=folder, weights=as_weights(weights),
        quant=quant, name="tiny",
    )  # fmt: skip
    return out, mlx_model(config, weights), config, weights


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_computes_the_same_function(tmp_path: Path, family: str) -> None:
    out, logits, _, _ = build(tmp_path, family)
    result = compare(out, mlx_logits=logits, prompts=prompts(tmp_path), quant="f16")
    assert result.passed, result.failures
    assert result.tokens_equal
    assert result.positions > 200
    assert result.top1_agreement >= 0.995
    assert result.perplexity_ratio == pytest.approx(1, abs=1e-3)
    assert result.max_kl < largest_kl(family)


def largest_kl(family: str) -> float:
    if family == "mixtral" or "experts" in family:
        return 0.3  # at the odd place where two experts are level, the other one may be taken
    return 2e-3 if family.startswith("gemma") else 1e-4  # gelu from a table of float16


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma3"])
def test_eight_bits_cost_what_they_cost_in_mlx(tmp_path: Path, family: str) -> None:
    """A random model loses more to a type than a trained one: its own loss is the measure."""
    out, logits, config, weights = build(tmp_path, family, "q8_0")
    found = compare(out, mlx_logits=logits, prompts=prompts(tmp_path), quant="q8_0")
    rounded = mlx_model(config, {name: in_eight_bits(value) for name, value in weights.items()})
    own = [divergence(logits(ids), rounded(ids))[0] for _, ids in prompts(tmp_path)]
    assert found.tokens_equal
    # llama.cpp codes the other factor of each product, too.
    assert found.mean_kl < 3 * float(np.concatenate(own).mean())


def in_eight_bits(value: np.ndarray) -> np.ndarray:
    if value.ndim < 2:
        return value
    return np.asarray(dequantize(quantize(value, Q8_0), Q8_0))


def test_rows_left_unrotated_fail(tmp_path: Path) -> None:
    _, logits, config, weights = build(tmp_path, "llama")

    def spoiled(name: str, value: np.ndarray) -> np.ndarray:
        # Undo what the writer will do, so that the file holds the checkpoint's own order.
        part = name.split(".")[-2]
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(part)
        return value if heads is None else np.asarray(rotate_back(value, config[heads]))

    wrong = {name: spoiled(name, value) for name, value in weights.items()}
    out = write_gguf(
        tmp_path / "wrong.gguf", config=config, tokenizer_dir=tmp_path,
        weights=as_weights(wrong), quant="f16", name="tiny",
    )  # fmt: skip
    result = compare(out, mlx_logits=logits, prompts=prompts(tmp_path), quant="f16")
    assert not result.passed
    assert result.tokens_equal
    assert result.top1_agreement < 0.9
    assert any("likeliest token agrees" in line for line in result.failures)
    assert any("mean KL" in line for line in result.failures)


def rotate_back(value: np.ndarray, heads: int) -> np.ndarray:
    order = np.argsort(rotate(np.arange(len(value)), heads))
    return value[order]


def test_a_model_that_knows_the_text_better_fails(tmp_path: Path) -> None:
    out, logits, _, _ = build(tmp_path, "llama")

    def knows(ids: list[int]) -> np.ndarray:
        found = logits(ids)
        found[np.arange(len(ids) - 1), ids[1:]] += 0.01
        return found

    result = compare(out, mlx_logits=knows, prompts=prompts(tmp_path), quant="f16")
    assert result.perplexity_ratio == pytest.approx(np.exp(0.01), rel=1e-3)
    assert "times the trained model's, f16 allows 1.001 times" in result.failures[-1]


def test_other_tokens_fail(tmp_path: Path) -> None:
    out, logits, _, _ = build(tmp_path, "qwen2")
    text, ids = prompts(tmp_path)[0]
    ids = [*ids[:5], ids[5] + 1, *ids[6:]]
    result = compare(out, mlx_logits=logits, prompts=[(text, ids)], quant="f16")
    assert not result.tokens_equal
    assert not result.passed
    assert "prompt 1: llama.cpp reads other tokens from position 5 on" in result.failures[0]


def test_bad_input_is_refused(tmp_path: Path) -> None:
    out, logits, _, _ = build(tmp_path, "llama")
    with pytest.raises(ForgeError, match="no held-out text"):
        compare(out, mlx_logits=logits, prompts=[], quant="f16")
    with pytest.raises(UsageError, match="unknown type"):
        compare(out, mlx_logits=logits, prompts=prompts(tmp_path), quant="q1")
    with pytest.raises(ForgeError, match="tokens in its vocabulary"):
        compare(
            out, mlx_logits=lambda ids: logits(ids)[:, :-1], prompts=prompts(tmp_path), quant="f16"
        )
    with LlamaCpp(out, 8) as llama:
        with pytest.raises(ForgeError, match="9 tokens do not fit"):
            llama.logits([1] * 9)
        with pytest.raises(ForgeError, match="a prompt has token 99999"):
            llama.logits([99999])


def test_llama_cpps_reason_is_passed_on(tmp_path: Path) -> None:
    out, *_ = build(tmp_path, "llama")
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ForgeError, match=r"model\.gguf: llama.cpp refuses it: .*\w"):
        LlamaCpp(out, 64)
    with pytest.raises(ForgeError, match="refuses it"):
        LlamaCpp(tmp_path / "absent.gguf", 64)


def test_a_sequence_longer_than_a_batch_is_one_sequence(tmp_path: Path) -> None:
    kind, pre, _ = FAMILIES["llama"]
    config = tiny_config(kind, save_tokenizer(tmp_path, pre), max_position_embeddings=2048)
    weights = random_weights(config)
    out = write_gguf(
        tmp_path / "model.gguf", config=config, tokenizer_dir=tmp_path,
        weights=as_weights(weights), quant="f32", name="tiny",
    )  # fmt: skip
    ids = [int(i) for i in np.random.default_rng(1).integers(0, 500, 700)]
    with LlamaCpp(out, 1024) as llama:
        first, again = llama.logits(ids), llama.logits(ids)
    assert np.array_equal(first, again), "the cache is cleared before each sequence"
    kl, same = divergence(mlx_model(config, weights)(ids), first)
    assert same.mean() >= 0.99
    assert kl.max() < 1e-4


def test_divergence_is_kl_in_nats() -> None:
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.5, 0.25]])
    kl, same = divergence(np.log(p) + 7, np.log(q) - 3)
    assert kl[0] == pytest.approx((p * np.log(p / q)).sum())
    assert not same[0]
    assert divergence(np.full((1, 3), np.nan), np.log(q))[0][0] == np.inf


def test_likeliest_tokens_that_float16_cannot_tell_apart_agree() -> None:
    ours = np.array([[8.0, 8.0 - 2**-8, 0.0]] * 3)
    theirs = np.array([[5.0, 1.0, 0.0], [1.0, 5.0, 0.0], [1.0, 0.0, 5.0]])
    assert divergence(ours, theirs)[1].tolist() == [True, True, False]
    assert not divergence(ours * [1, 0.99, 1], theirs)[1][1]


def test_the_loss_of_the_next_token() -> None:
    p = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    assert next_losses(np.log(p) + 7, [0, 2, 1]) == pytest.approx(-np.log([0.25, 0.2]))
    long = np.random.default_rng(0).standard_normal((200, 3))
    whole = next_losses(long, [1] * 200)
    assert np.array_equal(whole[150:], next_losses(long[150:], [1] * 50))


def test_weights_are_read_by_name_once(tmp_path: Path) -> None:
    config = tiny_config("qwen3", save_tokenizer(tmp_path, "qwen2"))
    seen: list[str] = []
    lazy = {
        name: Weight(value.shape, lambda name=name, value=value: seen.append(name) or value)
        for name, value in random_weights(config).items()
    }
    write_gguf(
        tmp_path / "out.gguf", config=config, tokenizer_dir=tmp_path, weights=lazy, quant="q4_k_m",
        name="tiny",
    )  # fmt: skip
    assert sorted(seen) == sorted(lazy)
