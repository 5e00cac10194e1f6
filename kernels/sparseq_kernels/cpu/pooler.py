"""A pooler, tanh of a dense layer of each sequence's first position, in one product of native code."""

import torch
from torch import Tensor

from ..encoder import EncoderLinear
from ..errors import InputError
from ..numerics import check_depth, qmax
from . import native


class NativePooler:
    """tanh(x[:, 0] weight^T + bias), with x quantized to int8 by row: fp32 [batch, length, K] -> [batch, N].

    It multiplies by the layer's own tensors. Raises InputError for a static scale or an activation, and for tensors
    that do not fit each other or are not contiguous on the CPU.
    """

    def __init__(self, linear: EncoderLinear) -> None:
        _check(linear)
        # Its memory lives as long as the addresses.
        self._linear = linear
        self.features, self._inputs = linear.weight.shape
        bias = None if linear.bias is None else linear.bias.data_ptr()
        self._weight_at, self._scales_at = linear.weight.data_ptr(), (linear.weight_scale.data_ptr(), bias)

    def __call__(self, hidden: Tensor) -> Tensor:
        """hidden: fp32 on the CPU, [batch, length, K]. MemoryError if there is no memory for its integers."""
        batch = hidden.shape[0]
        if hidden.shape[2:] != (self._inputs,) or hidden.dtype is not torch.float32 or not hidden.is_cpu:
            raise InputError(
                f"pooler: hidden must be fp32 on the CPU, of shape [batch, length, {self._inputs}], not "
                f"{hidden.dtype} on {hidden.device}, of shape {tuple(hidden.shape)}"
            )
        first = hidden[:, 0].contiguous()
        y = torch.empty((batch, self.features), dtype=torch.float32, device=native.CPU)
        failed = native.library().sparseq_quantized_linear(
            first.data_ptr(),
            self._weight_at,
            batch,
            self.features,
            self._inputs,
            qmax(8),
            *self._scales_at,
            y.data_ptr(),
            native.threads(),
        )
        if failed:
            raise MemoryError(f"no memory for the {first.numel()} integers of a pooler's input")
        return y.tanh_()


def _check(linear: EncoderLinear) -> None:
    if linear.input_scale is not None or linear.activation != "none":
        raise InputError("pooler: the layer must have neither a static scale nor an activation")
    weight, scale, bias = linear.weight, linear.weight_scale, linear.bias
    if weight.dtype is not torch.int8 or weight.dim() != 2:
        raise InputError(f"pooler: the weight must be int8 [N, K], not {weight.dtype} of shape {tuple(weight.shape)}")
    floats = [scale] if bias is None else [scale, bias]
    if any(one.dtype is not torch.float32 or one.shape != weight.shape[:1] for one in floats):
        raise InputError("pooler: the scale, and a bias if any, must be fp32 [N]")
    if not all(tensor.is_cpu and tensor.is_contiguous() for tensor in (weight, *floats)):
        raise InputError("pooler: all tensors must be contiguous, on the CPU")
    check_depth(weight.shape[1])
