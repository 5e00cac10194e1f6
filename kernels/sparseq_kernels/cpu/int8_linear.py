import torch
from torch import Tensor

from ..numerics import as_rows
from ..reference.int8_linear import ACTIVATIONS, check_depth, delivered, flat_scale, result_dtype
from ..reference.int8_linear import quantize_input as check_input
from . import native as compiled
from .int8_matmul import int8_matmul, way
from .quantize_rows import quantize, quantize_rows


def quantize_input(x: Tensor, input_scale: Tensor | None, bits: int, *, native: bool) -> tuple[Tensor, Tensor]:
    if x.dtype == torch.int8:
        return check_input(x, input_scale, bits)
    if input_scale is None:
        return quantize_rows(x, bits, native=native)
    return quantize(x, input_scale, bits), flat_scale(input_scale)


def scaled_product(
    x: Tensor,
    weight: Tensor,
    input_scale: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    *,
    native: bool,
) -> Tensor:
    """(x weight^T) * input_scale[:, None] * weight_scale + bias, in the scales' dtype: int8 [M, K], int8 [N, K], [M or
    1], [N], [N] or None -> [M, N]."""
    if not (native and input_scale.dtype == weight_scale.dtype == torch.float32):
        y = int8_matmul(x, weight, native=native).to(input_scale.dtype)
        y.mul_(input_scale.unsqueeze(-1)).mul_(weight_scale)
        return y if bias is None else y.add_(bias)
    added = None if bias is None else bias.to(torch.float32)
    if way(native) == "native":
        check_depth(x.shape[1])
        return compiled.int8_linear(x, weight, input_scale, weight_scale, added)
    return compiled.scale_sums(int8_matmul(x, weight, native=native), input_scale, weight_scale, added)


def int8_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
    output_scale: Tensor | None,
    *,
    native: bool,
) -> Tensor:
    fp32 = x.dtype is weight_scale.dtype is torch.float32 and (bias is None or bias.dtype is torch.float32)
    if native and fp32 and input_scale is None and way(native) == "native":
        check_depth(weight.shape[1])
        y = compiled.quantized_linear(x, weight, weight_scale, bias, 8)
    else:
        q, scale = quantize_input(as_rows(x), input_scale, 8, native=native)
        y = scaled_product(q, weight, scale, weight_scale, bias, native=native)
        y = y.reshape(*x.shape[:-1], weight.shape[0])
    return delivered(ACTIVATIONS[activation](y), result_dtype(x, out_dtype, output_scale), output_scale)
