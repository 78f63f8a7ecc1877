"""Rotary position embedding: its base, scaling and frequency factors, as GGUF states them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from forge_cli.core.errors import ForgeError
from forge_cli.export.gguf.architectures import Architecture, need
from forge_cli.models.gguf_import import llama3_factors


def rope_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's rope settings, from either layout of config.json.

    Transformers 5 nests `rope_theta` and the scaling under `rope_parameters`; before, they
    were `rope_theta` and `rope_scaling`.
    """
    nested = config.get("rope_parameters") or {}
    nested = nested.get("full_attention", nested)  # where sliding layers have their own
    scaling = config.get("rope_scaling") or nested
    theta = config.get("rope_theta", nested.get("rope_theta"))
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    return {**scaling, "rope_type": kind, "rope_theta": theta}


def rotary_dimensions(config: Mapping[str, Any], head_dim: int) -> int:
    """How many of a head's numbers are rotated."""
    rope = rope_settings(config)
    part = rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1
    return int(head_dim * float(part))


def add_rope(writer: Any, arch: Architecture, config: Mapping[str, Any]) -> None:
    """Write base and scaling as GGUF metadata.

    Raises:
        ForgeError: a kind of scaling that Forge cannot write exactly, or no base.
    """
    from gguf import RopeScalingType

    rope = _supported(config, arch)
    theta = rope["rope_theta"] or arch.rope_theta
    if theta is None:
        raise ForgeError("config.json has no rope_theta", "take the model's original config.json")
    writer.add_rope_freq_base(float(theta))
    match rope["rope_type"]:
        case "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(_number(rope, "factor"))
        case "yarn":
            writer.add_rope_scaling_type(RopeScalingType.YARN)
            writer.add_rope_scaling_factor(_number(rope, "factor"))
            original = _number(rope, "original_max_position_embeddings")
            writer.add_rope_scaling_orig_ctx_len(int(original))
            _add_yarn_extras(writer, rope)
        case "longrope" | "su":
            writer.add_rope_scaling_attn_factors(_long_rope_scale(rope, config))


def factor_tensors(
    config: Mapping[str, Any], arch: Architecture, head_dim: int
) -> dict[str, np.ndarray]:
    """Tensors of what each frequency is divided by, float32 [rotated dimensions / 2].

    `rope_freqs.weight` of Llama 3; of longrope two, from which llama.cpp chooses by whether its
    context is longer than that of the first training.
    """
    rope = _supported(config, arch)
    if rope["rope_type"] == "llama3":
        keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        scaling = {key: _number(rope, key) for key in keys}
        theta = float(rope["rope_theta"] or arch.rope_theta or 0.0)
        found = llama3_factors(scaling, {"head_dim": head_dim, "rope_theta": theta})
        return {"rope_freqs.weight": found}
    if rope["rope_type"] not in ("longrope", "su"):
        return {}
    out = {}
    for kind in ("long", "short"):
        factors = np.asarray(rope.get(f"{kind}_factor") or [], np.float32)
        wanted = rotary_dimensions(config, head_dim) // 2
        if factors.shape != (wanted,):
            raise ForgeError(
                f"config.json: {kind}_factor has {factors.size} numbers, the model takes {wanted}",
                "take the model's original config.json",
            )
        out[f"rope_factors_{kind}.weight"] = factors
    return out


def _supported(config: Mapping[str, Any], arch: Architecture) -> dict[str, Any]:
    rope = rope_settings(config)
    if rope["rope_type"] not in arch.rope:
        raise ForgeError(
            f"rope scaling {rope['rope_type']} cannot be exported to GGUF in a {arch.gguf} model",
            f"supported: {', '.join(arch.rope)}",
        )
    return rope


def _long_rope_scale(rope: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    """What queries and keys are multiplied by, as mlx-lm and llama.cpp's converter have it."""
    original = need({**config, **rope}, "original_max_position_embeddings")
    longer = need(config, "max_position_embeddings") / original
    scale = math.sqrt(1 + math.log(longer) / math.log(original)) if longer > 1 else 1.0
    for key in ("attention_factor", "short_mscale", "long_mscale"):
        if rope.get(key) is not None and not math.isclose(rope[key], scale, rel_tol=1e-6):
            raise ForgeError(
                f"rope scaling longrope with {key} {rope[key]} cannot be exported to GGUF yet",
                f"supported: {scale:.6g}, which follows from the two context lengths",
            )
    return scale


def _number(rope: Mapping[str, Any], key: str) -> float:
    if rope.get(key) is None:
        raise ForgeError(
            f"config.json: rope scaling {rope['rope_type']} has no {key}",
            "take the model's original config.json",
        )
    return float(rope[key])


def _add_yarn_extras(writer: Any, rope: Mapping[str, Any]) -> None:
    if rope.get("beta_fast") is not None:
        writer.add_rope_scaling_yarn_beta_fast(float(rope["beta_fast"]))
    if rope.get("beta_slow") is not None:
        writer.add_rope_scaling_yarn_beta_slow(float(rope["beta_slow"]))
    usual: dict[str, float] = {  # llama.cpp has these for all families here, whatever a file says
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1,
        "mscale_all_dim": 0,
        "extrapolation_factor": 1,
        "attention_factor": 0.1 * math.log(max(1.0, _number(rope, "factor"))) + 1,
    }
    for key, value in usual.items():
        if rope.get(key) is not None and not math.isclose(rope[key], value, rel_tol=1e-6):
            raise ForgeError(
                f"rope scaling yarn with {key} {rope[key]} cannot be exported to GGUF yet",
                f"supported: {key} {value:.6g}",
            )
