"""A quantization-aware layer's inputs, and its gradients by their formulas."""

import itertools
from typing import Any

import torch
from gpu_or_interpreter import DEVICE, TOLERANCE, randn
from torch import Tensor

from sparseq_kernels.block_index import BlockIndex
from sparseq_kernels.numerics import clip_and_slope, lsq_gradient_scale, masked, qmax, reciprocal
from sparseq_kernels.reference.quantize_rows import quantize_rows

BITS = [(4, 8), (8, 8), (2, 8), (16, 16), (8, 16)]
What = tuple[bool, bool, bool]
# Whether the weight is masked, its scale learned, the input's static.
WHAT: list[What] = list(itertools.product([False, True], repeat=3))


class Layer:
    """The inputs of one layer; scales where they are learned or static, so that some values lie beyond their range."""

    def __init__(
        self,
        M: int,
        N: int,
        K: int,
        bits: tuple[int, int] = (8, 8),
        what: What = (False, False, False),
        dtype: torch.dtype = torch.float32,
        weight_dtype: torch.dtype = torch.float32,
    ) -> None:
        has_mask, learned, static = what
        self.x, self.weight = randn(M, K, dtype=dtype), randn(N, K, seed=1, dtype=weight_dtype)
        self.bias, self.grad = randn(N, seed=2), randn(M, N, seed=3, dtype=dtype)
        self.mask = randn(N, K, seed=4) > -0.3 if has_mask else None
        spread = randn(N, seed=5).abs() + 1.5
        self.weight_scale = spread / qmax(bits[0]) if learned else None
        self.input_scale = torch.tensor([2.0 / qmax(bits[1])], device=DEVICE) if static else None
        self.bits = bits
        self.tiles: list[Tensor] | None = None

    def masked_by(self, mask: Tensor) -> "Layer":
        """The same with another mask and its tiles' lists, and NaN in the weights that are masked."""
        self.mask, self.tiles = mask, BlockIndex.from_mask(mask).tensors()
        self.weight[~mask] = float("nan")
        return self

    @property
    def operands(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
        return self.x, self.weight, self.mask, self.weight_scale, self.input_scale

    def forward(self, out_dtype: torch.dtype | None = None) -> tuple[Any, ...]:
        x, weight, *scales = self.operands
        return x, weight, self.bias, *scales, *self.bits, out_dtype, False, self.tiles

    def backward(self, saved: list[Tensor] | None = None, regrow: bool = False, needs: str = "11111") -> Any:
        wanted = [need == "1" for need in needs]
        settings = (*self.bits, self.x.dtype, regrow, wanted)
        return torch.ops.sparseq.qat_linear_backward(self.grad, *self.operands, saved or [], *settings, self.tiles)


def fake_quantized(values: Tensor, scale: Tensor | None, bits: int, dtype: torch.dtype) -> Tensor:
    """fp64 [rows, K], rounded to `dtype` on the way as a product's operand is."""
    found = quantize_rows(values, bits)[1] if scale is None else scale
    found = found.reshape(-1, 1)
    levels = torch.round(values.float() * reciprocal(found)).clamp(-qmax(bits), qmax(bits))
    return (levels * found).to(dtype).double()


def expected_gradients(layer: Layer, regrow: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    """The five gradients by their formulas in fp64, and for each the sum of the magnitudes that were added up."""
    dtype, (weight_bits, input_bits), K = layer.grad.dtype, layer.bits, layer.x.shape[1]
    g, kept = layer.grad.double(), masked(layer.weight, layer.mask)
    wq = fake_quantized(kept, layer.weight_scale, weight_bits, dtype)
    xq = fake_quantized(layer.x, layer.input_scale, input_bits, dtype)
    grad_x, grad_w = g @ wq, g.t() @ xq
    size_x, size_w = g.abs() @ wq.abs(), g.t().abs() @ xq.abs()
    grads, sizes = [torch.zeros(0)] * 5, [torch.zeros(0)] * 5
    if layer.weight_scale is not None:
        inside, slope = clip_and_slope(kept, layer.weight_scale.unsqueeze(1), weight_bits)
        factor = lsq_gradient_scale(K, 1, weight_bits)
        grads[3], sizes[3] = (grad_w * slope).sum(1) * factor, (size_w * slope.abs()).sum(1) * factor
        grad_w = grad_w * inside
    if layer.input_scale is not None:
        inside, slope = clip_and_slope(layer.x, layer.input_scale, input_bits)
        factor = lsq_gradient_scale(K, 1, input_bits)
        grads[4], sizes[4] = (grad_x * slope).sum()[None] * factor, (size_x * slope.abs()).sum()[None] * factor
        grad_x = grad_x * inside
    grads[:3] = grad_x, grad_w if regrow else masked(grad_w, layer.mask), g.sum(0)
    sizes[:3] = size_x, size_w, g.abs().sum(0)
    return grads, sizes


def assert_gradients(found: Any, layer: Layer, regrow: bool = False) -> None:
    for name, value, wanted, size in zip(
        ("x", "weight", "bias", "weight_scale", "input_scale"), found, *expected_gradients(layer, regrow), strict=True
    ):
        tolerance = TOLERANCE[torch.float32 if name == "bias" else layer.grad.dtype]
        tolerance = max(tolerance, TOLERANCE[value.dtype])
        assert value.shape == wanted.shape, name
        assert ((value.double() - wanted.to(DEVICE)).abs() <= tolerance * size.to(DEVICE) + 1e-6).all(), name
