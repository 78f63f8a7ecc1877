"""The quantiser that serves: MLX's quantisation by groups, and its exact function on the CPU.

`affine` (a scale and an offset for each group; 2, 3, 4, 6 or 8 bits) and `mxfp4` (4-bit floats
with one power of two for 32 weights). bits = 16 stands for "not quantised".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypedDict

from forge_cli.core.errors import UsageError
from forge_cli.models.backend import mx, nn, on_gpu
from forge_cli.models.targets import get_module, set_module

# Mode → the bits and the group sizes that mlx.core.quantize has for it and Forge is tested with.
MODES = {"affine": ((2, 3, 4, 6, 8), (32, 64, 128)), "mxfp4": ((4,), (32,))}


class Quantiser(TypedDict):
    """How a model is quantised: the keyword arguments of the functions below."""

    bits: int
    group_size: int
    mode: str


def check_quantiser(*, bits: int, group_size: int, mode: str = "affine") -> None:
    """Refuse what MLX cannot quantise to, before a model is loaded.

    Raises:
        UsageError: an unknown mode, or bits or a group size that the mode does not have.
    """
    if mode not in MODES:
        raise UsageError(f"quant_mode {mode}: unknown", f"known: {', '.join(MODES)}")
    if bits == 16:
        return
    known_bits, known_groups = MODES[mode]
    if bits not in known_bits:
        choice = ", ".join(map(str, known_bits))
        raise UsageError(f"bits {bits}: not in quant_mode {mode}", f"choose bits: {choice} or 16")
    if group_size not in known_groups:
        choice = ", ".join(map(str, known_groups))
        raise UsageError(
            f"group_size {group_size}: not in quant_mode {mode}", f"choose group_size: {choice}"
        )


def round_trip(weight: mx.array, *, bits: int, group_size: int, mode: str = "affine") -> mx.array:
    """deq(quant(W)) for W [out, in]; the dtype of `weight` is kept.

    By groups of `group_size` along the last axis (mlx.core.quantize). bits 16: W itself.
    """
    if bits == 16:
        return weight
    packed = mx.quantize(weight, group_size=group_size, bits=bits, mode=mode)
    return mx.dequantize(*packed, group_size=group_size, bits=bits, mode=mode).astype(weight.dtype)


def quantisable(module: nn.Module, group_size: int) -> bool:
    """Whether MLX would quantise this module: a linear or embedding whose rows fill groups."""
    return (
        isinstance(module, nn.Linear | nn.Embedding) and module.weight.shape[-1] % group_size == 0
    )


def quantise_model(
    model: nn.Module,
    *,
    bits: int,
    group_size: int,
    mode: str = "affine",
    stored: Mapping[str, nn.Module] | None = None,
    done: Collection[str] = (),
) -> None:
    """Quantise all linear layers and embeddings in place (`bits` 16: leave them).

    On the GPU they become MLX's quantised layers. On the CPU, where `quantized_matmul`
    is 30-700 times slower than a GEMM, they keep the dequantised values in float32: the
    same function in more memory.

    Args:
        stored: by path, layers of a checkpoint that is quantised already. Their values stay:
            quantising dequantised values again moves them, for groups get other ranges.
        done: paths of layers that were quantised one by one before.
    """
    if bits == 16:
        return
    stored = stored or {}
    if on_gpu():
        pack_model(model, Quantiser(bits=bits, group_size=group_size, mode=mode), stored)
        return
    for name, module in model.named_modules():
        path = name.removesuffix(".base")
        if quantisable(module, group_size) and path not in stored and path not in done:
            quantise_layer(module, bits=bits, group_size=group_size, mode=mode)


def quantise_layer(
    module: nn.Module,
    *,
    bits: int,
    group_size: int,
    mode: str = "affine",
    stored: nn.Module | None = None,
) -> nn.Module:
    """One linear layer or embedding, quantised: on the CPU in place, on the GPU in its stead.

    Args:
        stored: the layer as the checkpoint has it quantised already: its values stay.
    """
    if stored is not None:
        return stored if on_gpu() else module
    if bits == 16 or not quantisable(module, group_size):
        return module
    if on_gpu():
        return _packed(module, Quantiser(bits=bits, group_size=group_size, mode=mode))
    module.weight = round_trip(module.weight, bits=bits, group_size=group_size, mode=mode)
    # One at a time: a lazy graph of all layers would hold both copies.
    mx.eval(module.weight)
    return module


def pack_model(model: nn.Module, how: Quantiser, stored: Mapping[str, nn.Module]) -> None:
    """Put MLX's quantised layers into the model; those in `stored` as they are.

    One after another, and no list of the modules is kept: a dense layer that was read stays in
    memory as long as someone holds it.
    """
    for name in [name for name, module in model.named_modules() if name]:
        module = get_module(model, name)
        if quantisable(module, how["group_size"]):
            kept = stored.get(name.removesuffix(".base"))
            set_module(model, name, _packed(module, how) if kept is None else kept)


def _packed(module: nn.Module, how: Quantiser) -> nn.Module:
    packed: nn.Module = module.to_quantized(**how)
    mx.eval(packed.parameters())
    return packed


def is_packed(module: nn.Module) -> bool:
    """Whether this is one of MLX's quantised layers."""
    return isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding)


def dense_weight(module: nn.Module) -> mx.array:
    """The float32 weight [out, in] that a plain or quantised linear or embedding applies.

    Of experts: [experts, out, in].
    """
    if "scales" not in module:
        return module.weight.astype(mx.float32)
    affine = module.mode == "affine"  # its scales and offsets are floats; others' are codes
    return mx.dequantize(
        module.weight,
        module.scales.astype(mx.float32) if affine else module.scales,
        module.biases.astype(mx.float32) if affine else None,
        group_size=module.group_size,
        bits=module.bits,
        mode=module.mode,
    ).astype(mx.float32)


def logical_shape(module: nn.Module) -> tuple[int, ...]:
    """[out, in] of a plain or quantised linear or embedding; of experts [experts, out, in]."""
    *rows, columns = module.weight.shape
    if "scales" in module:
        columns = columns * 32 // module.bits
    return (*rows, columns)
