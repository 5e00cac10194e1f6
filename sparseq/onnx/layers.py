"""What stands in for packed layers while a model is exported: their arithmetic in ONNX's operators.

Outside of an export the results are empty: `torch.onnx.ops.symbolic` computes nothing.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseq.nn import PackedEmbedding, PackedLinear
from sparseq_kernels.numerics import ZERO_BELOW, qmax, reciprocal, row_max

LIMIT = qmax(8)  # of activations
# Activations are uint8 around this value. ONNX Runtime has no fast product of int8 by int8 on x86-64, and does not fuse
# pairs of int8 that several products share.
ZERO_POINT = 128


class IntegerLinear(nn.Module):
    """A packed linear layer of up to 8 bits as a MatMulInteger: x fp32 [..., in_features] -> fp32 [..., out_features].

    It rounds, sums and scales as `int8_linear` does and in the same order, so that integers are the same.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    input_scale: Tensor | None
    one: Tensor
    zero_point: Tensor

    def __init__(self, layer: PackedLinear) -> None:
        super().__init__()
        _hold(self, layer, layer.input_scale)
        self.register_buffer("one", torch.ones(()))
        self.register_buffer("zero_point", torch.tensor(ZERO_POINT, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        if self.input_scale is None:
            # A row of zeros may have any scale. `scale_from_max` gives it 1, for which ONNX takes six nodes more.
            scale = row_max(x).unsqueeze(-1).clamp_min(ZERO_BELOW) / LIMIT
            values = x * reciprocal(scale)
        else:
            scale = self.input_scale
            values = (x * reciprocal(scale)).clamp(-LIMIT, LIMIT)
        # A quantization with the scale 1 is the rounding, and one pass over memory.
        q = _onnx("QuantizeLinear", (values, self.one, self.zero_point), torch.uint8, x.shape)
        shape = (*x.shape[:-1], self.weight.shape[1])
        acc = _onnx("MatMulInteger", (q, self.weight, self.zero_point), torch.int32, shape)
        return _with_bias(acc.to(torch.float32) * scale * self.scale, self.bias)


class QdqLinear(nn.Module):
    """A packed linear layer of up to 8 bits as a MatMul of operands that were quantized and dequantized (QDQ):
    x fp32 [..., in_features] -> fp32 [..., out_features].

    input_scale: [1], of all activations.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    input_scale: Tensor
    zero_point: Tensor
    zero_points: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, layer: PackedLinear, input_scale: Tensor) -> None:
        super().__init__()
        _hold(self, layer, input_scale)
        self.register_buffer("zero_point", torch.tensor(ZERO_POINT, dtype=torch.uint8))
        # Zeros are the default, but ONNX Runtime 1.32 computes wrong results without them.
        self.register_buffer("zero_points", torch.zeros(self.scale.shape, dtype=torch.int8))
        # uint8 has 0, too, for which sparseq has no value.
        self.register_buffer("low", -LIMIT * self.input_scale)
        self.register_buffer("high", LIMIT * self.input_scale)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 2:  # With the bias ONNX Runtime would make it a Gemm, which it computes in floats.
            return self.forward(x.unsqueeze(1)).squeeze(1)
        clipped = _onnx("Clip", (x, self.low, self.high), torch.float32, x.shape)
        q = _onnx("QuantizeLinear", (clipped, self.input_scale, self.zero_point), torch.uint8, x.shape)
        x = _onnx("DequantizeLinear", (q, self.input_scale, self.zero_point), torch.float32, x.shape)
        # The scales are those of columns: with a transposition after it OpenVINO takes a product of floats.
        operands = (self.weight, self.scale, self.zero_points)
        weight = _onnx("DequantizeLinear", operands, torch.float32, self.weight.shape, axis=1)
        y = _onnx("MatMul", (x, weight), torch.float32, (*x.shape[:-1], self.weight.shape[1]))
        return _with_bias(y, self.bias)


class IntegerEmbedding(nn.Module):
    """A packed embedding as a table of integers, of which rows are looked up and then scaled: indices [...] -> fp32
    [..., embedding_dim]. The table is int8, or int16 at 16 bits."""

    weight: Tensor
    scale: Tensor

    def __init__(self, layer: PackedEmbedding) -> None:
        super().__init__()
        assert layer.scale is not None
        self.register_buffer("weight", layer.quantized_values().clone())
        self.register_buffer("scale", layer.scale.detach().unsqueeze(-1).clone())

    def forward(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.weight).to(torch.float32) * F.embedding(indices, self.scale)


def _hold(module: nn.Module, layer: PackedLinear, input_scale: Tensor | None) -> None:
    """Registers weight int8 [in_features, out_features], scale and bias [out_features], and input_scale []."""
    assert layer.scale is not None
    module.register_buffer("weight", layer.quantized_values().t().contiguous())
    module.register_buffer("scale", layer.scale.detach().clone())
    module.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
    module.register_buffer("input_scale", None if input_scale is None else input_scale.detach().reshape(()).clone())


def _with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias


def _onnx(op: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, shape: tuple[Any, ...], **attributes: int) -> Tensor:
    result: Tensor = torch.onnx.ops.symbolic(f"::{op}", inputs, {**attributes}, dtype=dtype, shape=shape)
    return result
