"""A packed layer's call, made again for another input: one call of native code, with all but the input known before.

On small layers looking at the arguments takes longer than the product.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import native
from .int8_matmul import way


@dataclass(frozen=True, slots=True)
class Recording:
    """`int8_linear` of fp32 inputs of one shape, quantized by row, and of constants that are kept alive elsewhere.

    run_native: the native function. fixed: its arguments between x and the result. shape: of the result.
    """

    run_native: Callable[..., int]
    fixed: tuple[int | None, ...]
    shape: tuple[int, ...]

    def run(self, x: Tensor) -> Tensor | None:
        """The op's result for x, of the recorded shape and dtype; None where what was recorded does not hold for where
        x lies, or there is a faster product now."""
        if not (x.is_cpu and x.is_contiguous()) or way(True) != "native":
            return None
        y = x.new_empty(self.shape)
        return None if self.run_native(x.data_ptr(), *self.fixed, y.data_ptr()) else y


def record(run: Callable[..., Any], x: Tensor, constants: Sequence[Any]) -> tuple[Tensor, Recording | None]:
    """(the result of run(x, *constants), which is `int8_linear`; the recording of this call, None where it is none of
    fp32 tensors, dynamic activations, and the product alone)."""
    result: Tensor = run(x, *constants)
    weight, weight_scale, bias, input_scale, activation, _, output_scale = constants
    tensors = [tensor for tensor in (x, weight_scale, bias, result) if tensor is not None]
    alone = input_scale is None and activation == "none" and output_scale is None
    fits = all(tensor.dtype == torch.float32 for tensor in tensors)
    if not (alone and fits and all(constant.is_contiguous() for constant in (weight, *tensors[1:]))):
        return result, None
    return result, Recording(*native.quantized_linear_call(x.shape, weight, weight_scale, bias, 8))
