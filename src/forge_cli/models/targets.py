"""Which layers get adapters, and of what rank: by pattern and by range."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.models.backend import nn

# What stands outside the blocks, such as lm_head, has this number.
_OUTSIDE = -1


def target_modules(model: nn.Module, targets: Sequence[str], layers: int | str) -> list[str]:
    """Paths of the linear layers that match a target and stand in the chosen blocks.

    Args:
        targets: the last part of a name (`q_proj`), or a glob over the whole path
            (`*.self_attn.*`, `model.layers.3.mlp.up_proj`). A glob that starts with * never
            takes a layer outside the blocks; `lm_head` by name does.
        layers: see `chosen_layers`.

    Raises:
        UsageError: no layer matches.
    """
    return choose_modules(linear_layers(model), len(model.layers), targets, layers)


def choose_modules(
    linear: Sequence[str], count: int, targets: Sequence[str], layers: int | str
) -> list[str]:
    """The same of the paths of a model's linear layers and its number of blocks."""
    if not any(matches(target, name) for target in targets for name in linear):
        found = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise UsageError(
            f"targets {', '.join(targets)}: no linear layer of this model has such a name",
            f"this model has: {', '.join(found)}; or give a glob such as *.self_attn.*",
        )
    blocks = chosen_layers(layers, count)
    if layers in (0, "all"):
        blocks |= {_OUTSIDE}
    chosen = [
        name
        for name in linear
        if block_of(name) in blocks and any(matches(target, name) for target in targets)
    ]
    if not chosen:
        raise UsageError(
            f"targets {', '.join(targets)}: none of them in layers {layers}",
            "choose other layers, or layers: all",
        )
    return sorted(chosen, key=lambda name: (block_of(name), name))


def linear_layers(model: nn.Module) -> list[str]:
    """Paths of all linear layers that are not quantised."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def matches(pattern: str, path: str) -> bool:
    """Whether a target or a rank pattern means the layer at `path`."""
    if "." not in pattern and not _is_glob(pattern):
        return path.rsplit(".", 1)[-1] == pattern
    if pattern.startswith("*") and block_of(path) == _OUTSIDE:
        return False
    return fnmatchcase(path, pattern)


def _is_glob(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[")


def chosen_layers(layers: int | str, count: int) -> set[int]:
    """The numbers of the blocks that `layers` means, of `count` blocks numbered from 0.

    16 or "last 16": the last 16, or all where there are fewer; "first 4"; "8-23" or
    "0-3, 20-23": from and to, both included; "all" or 0.

    Raises:
        UsageError: none of these, or a number that the model does not have.
    """
    text = f"last {layers}" if isinstance(layers, int) and layers else str(layers).strip()
    if text in ("all", "0"):
        return set(range(count))
    if end := re.fullmatch(r"(first|last) (\d+)", text):
        size = min(int(end[2]), count)
        return set(range(size) if end[1] == "first" else range(count - size, count))
    found: set[int] = set()
    for part in text.split(","):
        span = re.fullmatch(r"\s*(\d+)\s*-\s*(\d+)\s*", part)
        if not span or int(span[1]) > int(span[2]):
            raise UsageError(
                f"layers {layers}: not a choice of layers",
                "write 16 or last 16, first 4, 8-23, 0-3,20-23, or all",
            )
        if int(span[2]) >= count:
            raise UsageError(
                f"layers {layers}: the model has {count} layers, 0-{count - 1}",
                "choose from these",
            )
        found |= set(range(int(span[1]), int(span[2]) + 1))
    return found


def ranks_of(modules: Sequence[str], rank: int, pattern: Mapping[str, int]) -> dict[str, int]:
    """The rank of each module: of the first pattern that means it, else `rank`.

    Raises:
        UsageError: a pattern that means none of the modules.
    """
    for key in pattern:
        if not any(matches(key, name) for name in modules):
            raise UsageError(
                f"rank_pattern {key}: means none of the {len(modules)} layers with adapters",
                "patterns are like those of targets: q_proj, *.mlp.*, model.layers.3.*",
            )
    return {
        name: next((size for key, size in pattern.items() if matches(key, name)), rank)
        for name in modules
    }


def block_of(path: str) -> int:
    """The number of the block that a layer stands in; -1 outside of them."""
    return next((int(part) for part in path.split(".") if part.isdigit()), _OUTSIDE)


def get_module(model: nn.Module, path: str) -> Any:
    """The submodule at a dotted path."""
    for part in path.split("."):
        model = model[int(part)] if isinstance(model, list) else getattr(model, part)
    return model


def set_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` at a dotted path."""
    parent, _, leaf = path.rpartition(".")
    setattr(get_module(model, parent) if parent else model, leaf, module)
