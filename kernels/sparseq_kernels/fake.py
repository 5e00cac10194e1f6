"""Each op's results without their values: what torch.compile, torch.export and meta tensors see of it. Arguments come
by position and complete, and were checked (`checks`)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .backends import residuals
from .numerics import compute_dtype, storage_dtype
from .reference.int8_linear import result_dtype


def _quantized_like(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    scale = torch.empty(x.shape[:-1], dtype=compute_dtype(x), device=x.device)
    return torch.empty(x.shape, dtype=storage_dtype(bits), device=x.device), scale


def _quantize_rows(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    return _quantized_like(x, bits)


def _layer_norm_quantize_rows(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float, bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    return *_quantized_like(x, bits), torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _gelu_quantize_rows(x: Tensor, approximate: str, bits: int) -> tuple[Tensor, Tensor]:
    return _quantized_like(x, bits)


def _fake_quant(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    return torch.empty(torch.broadcast_shapes(x.shape, scale.shape), dtype=x.dtype, device=x.device)


def _fake_quant_backward(grad: Tensor, x: Tensor, scale: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    return torch.empty(x.shape, dtype=grad.dtype, device=x.device), scale.new_empty(scale.shape)


def _linear_shape(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=dtype, device=x.device)


def _qat_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    weight_bits: int,
    input_bits: int,
    out_dtype: torch.dtype | None,
    regrow: bool,
    tiles: list[Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    kept = residuals(x, weight, bias, weight_scale, input_scale, weight_bits, input_bits)
    rows, outputs = math.prod(x.shape[:-1]), weight.shape[0]

    def new(shape: tuple[int, ...], dtype: torch.dtype, kept: bool) -> Tensor:
        return torch.empty(shape if kept else 0, dtype=dtype, device=x.device)

    return (
        _linear_shape(x, weight, result_dtype(x, out_dtype)),
        new((rows, x.shape[-1]), torch.int8, kept.levels),
        new((rows,), compute_dtype(x), kept.x_scale),
        new((outputs, x.shape[-1]), torch.int8, kept.levels),
        new((outputs,), compute_dtype(weight), kept.w_scale),
    )


def _needed(like: Tensor, shape: Any, needed: bool, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(
        shape if needed else 0, dtype=(dtype or like.dtype) if needed else like.dtype, device=like.device
    )


def _qat_linear_backward(
    grad: Tensor,
    x: Tensor | None,
    weight: Tensor,
    mask: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    residuals: list[Tensor],
    weight_bits: int,
    input_bits: int,
    input_dtype: torch.dtype,
    regrow: bool,
    needs: list[bool],
    tiles: list[Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    learned_weight = weight_scale is not None and (needs[1] or needs[3])
    learned_input = input_scale is not None and (needs[0] or needs[4])
    return (
        _needed(grad, (*grad.shape[:-1], weight.shape[1]), needs[0] or needs[4], input_dtype),
        _needed(grad, weight.shape, needs[1] or needs[3], weight.dtype),
        _needed(grad, weight.shape[:1], needs[2], compute_dtype(grad)),
        _needed(grad, weight.shape[:1], learned_weight, None if weight_scale is None else weight_scale.dtype),
        _needed(
            grad,
            () if input_scale is None else input_scale.shape,
            learned_input,
            None if input_scale is None else input_scale.dtype,
        ),
    )


def _int8_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
    output_scale: Tensor | None,
) -> Tensor:
    return _linear_shape(x, weight, result_dtype(x, out_dtype, output_scale))


def _block_sparse_int8_linear(
    x: Tensor, values: Tensor, block_columns: Tensor, offsets: Tensor, order: Tensor, *rest: Any
) -> Tensor:
    return _stored_linear(x, *rest)


def _bitmask_int8_linear(x: Tensor, values: Tensor, bits: Tensor, offsets: Tensor, *rest: Any) -> Tensor:
    return _stored_linear(x, *rest)


def _semi_structured_int8_linear(x: Tensor, values: Tensor, indices: Tensor, *rest: Any) -> Tensor:
    return _stored_linear(x, *rest)


def _stored_linear(
    x: Tensor, weight_scale: Tensor, bias: Any, input_scale: Any, activation: str, out_dtype: torch.dtype | None
) -> Tensor:
    return _linear_shape(x, weight_scale, result_dtype(x, out_dtype))


def _int8_linear_backward(
    grad: Tensor,
    x: Tensor | None,
    stored: list[Tensor],
    format: str,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    in_features: int,
    input_dtype: torch.dtype,
    needs: list[bool],
) -> tuple[Tensor, Tensor]:
    return (
        _needed(grad, (*grad.shape[:-1], in_features), needs[0], input_dtype),
        _needed(grad, weight_scale.shape, needs[1], compute_dtype(grad)),
    )


def _int8_embedding(indices: Tensor, weight: Tensor, scale: Tensor, out_dtype: torch.dtype | None) -> Tensor:
    return torch.empty((*indices.shape, weight.shape[1]), dtype=out_dtype or scale.dtype, device=weight.device)


def _masked_linear(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None,
    regrow: bool,
    tiles: list[Tensor] | None,
) -> Tensor:
    return _linear_shape(x, weight, x.dtype)


def _masked_linear_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    regrow: bool,
    needs: list[bool],
    tiles: list[Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        _needed(grad, x.shape, needs[0]),
        _needed(grad, weight.shape, needs[1], weight.dtype),
        _needed(grad, weight.shape[:1], needs[2]),
    )


def _magnitude_mask(weights: list[Tensor], sparsity: float, pattern: str) -> list[Tensor]:
    return [torch.empty(w.shape, dtype=torch.bool, device=w.device) for w in weights]


FAKE: dict[str, Callable[..., Any]] = {
    "quantize_rows": _quantize_rows,
    "layer_norm_quantize_rows": _layer_norm_quantize_rows,
    "gelu_quantize_rows": _gelu_quantize_rows,
    "fake_quant": _fake_quant,
    "fake_quant_backward": _fake_quant_backward,
    "qat_linear": _qat_linear,
    "qat_linear_backward": _qat_linear_backward,
    "int8_linear": _int8_linear,
    "block_sparse_int8_linear": _block_sparse_int8_linear,
    "bitmask_int8_linear": _bitmask_int8_linear,
    "semi_structured_int8_linear": _semi_structured_int8_linear,
    "int8_linear_backward": _int8_linear_backward,
    "int8_embedding": _int8_embedding,
    "masked_linear": _masked_linear,
    "masked_linear_backward": _masked_linear_backward,
    "magnitude_mask": _magnitude_mask,
}
