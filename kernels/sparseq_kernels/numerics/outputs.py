"""What linear ops return: activations, dtypes, and what is saved for a backward."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .quantization import quantize
from .ranges import compute_dtype

ACTIVATIONS = {
    "none": lambda y: y,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
}


def result_dtype(x: Tensor, out_dtype: torch.dtype | None, output_scale: Tensor | None = None) -> torch.dtype:
    """The dtype of an output: int8 if it is quantized, `out_dtype` if given, else x's own.

    int8 activations have no floating dtype of their own; their output is fp32.
    """
    if output_scale is not None:
        return torch.int8
    if out_dtype is not None:
        return out_dtype
    return x.dtype if x.is_floating_point() else compute_dtype(x)


def to_output(y: Tensor, out_dtype: torch.dtype, output_scale: Tensor | None) -> Tensor:
    """y in `out_dtype`, or quantized to int8 by the one scale `output_scale`."""
    return y.to(out_dtype) if output_scale is None else quantize(y, output_scale, 8)


def nothing_saved(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four empty tensors: what a forward of `qat_linear` returns whose backward quantizes again."""
    x_q, w_q = x.new_empty(0, dtype=torch.int8), x.new_empty(0, dtype=torch.int8)
    return x_q, x.new_empty(0, dtype=compute_dtype(x)), w_q, x.new_empty(0, dtype=compute_dtype(weight))
