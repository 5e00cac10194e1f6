import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..numerics import MAX_INT8_DEPTH, as_rows, compute_dtype
from .quantize_rows import quantize, quantize_rows

ACTIVATIONS = {
    "none": lambda y: y,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
}


def int8_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """int8 [M, K] times int8 [N, K] transposed, summed exactly: int32 [M, N]. fp64 holds every partial sum exactly."""
    check_depth(x.shape[1])
    return (x.double() @ weight.double().t()).to(torch.int32)


def check_depth(depth: int) -> None:
    if depth > MAX_INT8_DEPTH:
        raise InputError(
            f"in_features is {depth}, above {MAX_INT8_DEPTH}: an int32 sum of int8 products could overflow"
        )


def quantize_input(x: Tensor, input_scale: Tensor | None, bits: int) -> tuple[Tensor, Tensor]:
    """(integers, scale [M or 1]) of x [M, K]: dynamic per row without `input_scale`, static per tensor with one."""
    if x.dtype == torch.int8:
        return x, int8_input_scale(input_scale)
    if input_scale is None:
        return quantize_rows(x, bits)
    return quantize(x, input_scale, bits), flat_scale(input_scale)


def dequantized_input(x: Tensor, input_scale: Tensor | None) -> Tensor:
    """x [M, K] quantized, and dequantized in compute_dtype."""
    levels, scale = quantize_input(x, input_scale, 8)
    return levels.to(scale.dtype) * scale.unsqueeze(-1)


def int8_input_scale(input_scale: Tensor | None) -> Tensor:
    """The scale [M or 1] that came with int8 activations; InputError if none did."""
    return flat_scale(given_scale(input_scale))


def given_scale(input_scale: Tensor | None) -> Tensor:
    """The scale that came with int8 activations, as it came; InputError if none did."""
    if input_scale is None:
        raise InputError("int8 activations need their scale: pass input_scale, one value a row or one in all")
    return input_scale


def flat_scale(scale: Tensor) -> Tensor:
    """[n], in the dtype that arithmetic has."""
    return scale.reshape(-1).to(compute_dtype(scale))


def epilogue(acc: Tensor, input_scale: Tensor, weight_scale: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """act(acc * input_scale[:, None] * weight_scale[None, :] + bias), in fp32 (fp64 if the scales are)."""
    y = acc.to(input_scale.dtype) * input_scale.unsqueeze(-1) * weight_scale
    if bias is not None:
        y = y + bias.to(y.dtype)
    return ACTIVATIONS[activation](y)


def delivered(y: Tensor, out_dtype: torch.dtype, output_scale: Tensor | None) -> Tensor:
    """An epilogue's result as it leaves: in `out_dtype`, or as int8 of the one scale `output_scale`."""
    return y.to(out_dtype) if output_scale is None else quantize(y, output_scale, 8)


def int8_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
    output_scale: Tensor | None = None,
) -> Tensor:
    q, scale = quantize_input(as_rows(x), input_scale, 8)
    y = epilogue(int8_matmul(q, weight), scale, weight_scale, bias, activation)
    y = delivered(y, result_dtype(x, out_dtype, output_scale), output_scale)
    return y.reshape(*x.shape[:-1], weight.shape[0])


def result_dtype(x: Tensor, out_dtype: torch.dtype | None, output_scale: Tensor | None = None) -> torch.dtype:
    """int8 if the output is quantized, `out_dtype` if given, else x's own; fp32 for int8 activations, which have no
    floating dtype of their own."""
    if output_scale is not None:
        return torch.int8
    if out_dtype is not None:
        return out_dtype
    return x.dtype if x.is_floating_point() else compute_dtype(x)
