"""Rotary position embedding: its base, scaling and frequency factors, as GGUF states them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from forge_cli.core.errors import ForgeError
from forge_cli.models.gguf_import import llama3_factors

_SUPPORTED = "default, linear, yarn, llama3"


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


def add_rope(writer: Any, config: Mapping[str, Any], default_theta: float | None) -> None:
    """Write base and scaling as GGUF metadata.

    Raises:
        ForgeError: a kind of scaling that Forge cannot write exactly, or no base.
    """
    from gguf import RopeScalingType

    rope = rope_settings(config)
    theta = rope["rope_theta"] or default_theta
    if theta is None:
        raise ForgeError("config.json has no rope_theta", "take the model's original config.json")
    writer.add_rope_freq_base(float(theta))
    match rope["rope_type"]:
        case "default" | "llama3":  # llama3 lies in a tensor: see `frequency_factors`
            pass
        case "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(_number(rope, "factor"))
        case "yarn":
            writer.add_rope_scaling_type(RopeScalingType.YARN)
            writer.add_rope_scaling_factor(_number(rope, "factor"))
            original = _number(rope, "original_max_position_embeddings")
            writer.add_rope_scaling_orig_ctx_len(int(original))
            _refuse_yarn_extras(rope)
        case other:
            raise ForgeError(
                f"rope scaling {other} cannot be exported to GGUF yet", f"supported: {_SUPPORTED}"
            )


def frequency_factors(config: Mapping[str, Any], head_dim: int, theta: float) -> np.ndarray | None:
    """The `rope_freqs.weight` of a Llama 3 model, float32 [head_dim / 2]; None for others.

    Args:
        theta: the base where config.json names none.
    """
    rope = rope_settings(config)
    if rope["rope_type"] != "llama3":
        return None
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    scaling = {key: _number(rope, key) for key in keys}
    return llama3_factors(
        scaling, {"head_dim": head_dim, "rope_theta": float(rope["rope_theta"] or theta)}
    )


def _number(rope: Mapping[str, Any], key: str) -> float:
    if rope.get(key) is None:
        raise ForgeError(
            f"config.json: rope scaling {rope['rope_type']} has no {key}",
            "take the model's original config.json",
        )
    return float(rope[key])


def _refuse_yarn_extras(rope: Mapping[str, Any]) -> None:
    usual = {"beta_fast": 32, "beta_slow": 1, "mscale": 1, "mscale_all_dim": 0}
    for key, value in usual.items():
        if rope.get(key) not in (None, value):
            raise ForgeError(
                f"rope scaling yarn with {key} {rope[key]} cannot be exported to GGUF yet",
                f"supported: {key} {value}",
            )
