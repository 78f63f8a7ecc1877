"""The quantiser that serves: MLX's affine quantisation, and its exact function on the CPU."""

from __future__ import annotations

from forge_cli.models.backend import mx, nn, on_gpu


def round_trip(weight: mx.array, *, bits: int, group_size: int) -> mx.array:
    """deq(quant(W)) for W [out, in]; the dtype of `weight` is kept.

    Affine quantisation by groups of `group_size` along the last axis (mlx.core.quantize).
    """
    packed = mx.quantize(weight, group_size=group_size, bits=bits)
    return mx.dequantize(*packed, group_size=group_size, bits=bits)


def quantisable(module: nn.Module, group_size: int) -> bool:
    """Whether MLX would quantise this module: a linear or embedding whose rows fill groups."""
    return (
        isinstance(module, nn.Linear | nn.Embedding) and module.weight.shape[-1] % group_size == 0
    )


def quantise_model(model: nn.Module, *, bits: int, group_size: int) -> None:
    """Quantise all linear layers and embeddings in place (`bits` 16: leave them).

    On the GPU they become MLX's quantised layers. On the CPU, where `quantized_matmul`
    is 30-700 times slower than a GEMM, they keep the dequantised values in float32: the
    same function in more memory.
    """
    if bits == 16:
        return
    if on_gpu():
        nn.quantize(
            model,
            group_size=group_size,
            bits=bits,
            class_predicate=lambda _, m: quantisable(m, group_size),
        )
        return
    for module in model.modules():
        if quantisable(module, group_size):
            module.weight = round_trip(module.weight, bits=bits, group_size=group_size)
            # One at a time: a lazy graph of all layers would hold both copies.
            mx.eval(module.weight)


def dense_weight(module: nn.Module) -> mx.array:
    """The float32 weight [out, in] that a plain or quantised linear or embedding applies."""
    if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
        return mx.dequantize(
            module.weight,
            module.scales,
            module.biases,
            group_size=module.group_size,
            bits=module.bits,
        ).astype(mx.float32)
    return module.weight.astype(mx.float32)


def logical_shape(module: nn.Module) -> tuple[int, ...]:
    """[out, in] of a plain or quantised linear or embedding."""
    rows, columns = module.weight.shape
    if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
        columns = columns * 32 // module.bits
    return (rows, columns)
