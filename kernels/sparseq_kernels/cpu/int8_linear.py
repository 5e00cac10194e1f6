import torch
from torch import Tensor

from ..numerics import as_rows
from ..reference.int8_linear import ACTIVATIONS, check_depth, delivered, flat_scale, result_dtype
from ..reference.int8_linear import quantize_input as check_input
from . import native as compiled
from .quantize_rows import quantize, quantize_rows


def int8_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """int8 [M, K] times int8 [N, K] transposed: int32 [M, N]."""
    check_depth(x.shape[1])
    if 0 in (*x.shape, weight.shape[0]):
        return torch.zeros(x.shape[0], weight.shape[0], dtype=torch.int32)
    if x.shape[1] == 1:
        # oneDNN cannot tell a [1, N] operand's layout and returns uninitialized memory (torch 2.13).
        return x.to(torch.int32) * weight.to(torch.int32).t()
    return torch._int_mm(_row_major(x), _row_major(weight).t())


def _row_major(matrix: Tensor) -> Tensor:
    """Contiguous, with the strides that say so: where a dimension is 1 others would pass, and oneDNN misreads them."""
    if matrix.stride() == (matrix.shape[1], 1):
        return matrix
    return matrix.contiguous().view(-1).view(matrix.shape)


def quantize_input(x: Tensor, input_scale: Tensor | None, bits: int, *, native: bool) -> tuple[Tensor, Tensor]:
    if x.dtype == torch.int8:
        return check_input(x, input_scale, bits)
    if input_scale is None:
        return quantize_rows(x, bits, native=native)
    return quantize(x, input_scale, bits), flat_scale(input_scale)


def epilogue(
    acc: Tensor,
    input_scale: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    activation: str,
    *,
    native: bool,
) -> Tensor:
    if native and input_scale.dtype == weight_scale.dtype == torch.float32:
        y = compiled.scale_sums(acc, input_scale, weight_scale, None if bias is None else bias.float())
    else:
        y = acc.to(input_scale.dtype).mul_(input_scale.unsqueeze(-1)).mul_(weight_scale)
        if bias is not None:
            y.add_(bias)
    return ACTIVATIONS[activation](y)


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
    q, scale = quantize_input(as_rows(x), input_scale, 8, native=native)
    y = epilogue(int8_matmul(q, weight), scale, weight_scale, bias, activation, native=native)
    y = delivered(y, result_dtype(x, out_dtype, output_scale), output_scale)
    return y.reshape(*x.shape[:-1], weight.shape[0])
