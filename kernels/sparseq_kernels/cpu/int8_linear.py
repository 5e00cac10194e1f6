"""`int8_linear` on the CPU: the int8 product that is fastest here, and its shortcut for packed layers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..numerics import (
    ACTIVATIONS,
    MAX_INT8_DEPTH,
    as_rows,
    check_depth,
    flat_scale,
    given_scale,
    result_dtype,
    to_output,
)
from ..registry import implementation, shortcut
from ..torch_internals import PLAIN_CLASSES, int_mm, is_plain_tensor, mkldnn_enabled
from ..weight_cache import WeightCache
from . import native as compiled
from .int8_matmul import int8_matmul, way, why_not_this_processor
from .quantize_rows import quantize, quantize_rows

FP32 = torch.float32


def quantize_input(x: Tensor, input_scale: Tensor | None, bits: int, *, native: bool) -> tuple[Tensor, Tensor]:
    if x.dtype == torch.int8:
        return x, flat_scale(given_scale(input_scale))
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


@implementation("int8_linear", "cpu", native=False)
@implementation("int8_linear", "native", native=True)
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
    return to_output(ACTIVATIONS[activation](y), result_dtype(x, out_dtype, output_scale), output_scale)


class _Constants(NamedTuple):
    """What a packed layer's calls have in common, validated once.

    weight_scale, bias: the tensors themselves, kept alive by this entry. at: the addresses of the weight, the scale and
    the bias, by which a change of their memory is seen. memory: that memory, so that no other tensor takes its place.
    shape: the weight's.
    """

    weight_scale: Tensor
    bias: Tensor | None
    at: tuple[int, int, int | None]
    memory: tuple[Tensor, ...]
    shape: torch.Size


_known: WeightCache[_Constants] = WeightCache()


@shortcut("int8_linear", "native")
def packed_call(
    run: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
    output_scale: Tensor | None,
) -> Tensor | None:
    """`int8_linear` of an fp32 input that is quantized by row, and contiguous tensors; None for any other call.

    In a small layer, validation takes longer than the product. So the weight, its scale and the bias are validated
    once, and later calls only see that they are the same tensors in the same memory.
    """
    if input_scale is not None or output_scale is not None or activation != "none" or out_dtype is not None:
        return None
    known = _known.get(weight)
    if (
        known is None
        or known.weight_scale is not weight_scale
        or known.bias is not bias
        or known.at != (weight.data_ptr(), weight_scale.data_ptr(), None if bias is None else bias.data_ptr())
        or weight.shape != known.shape
        or not _is_as_before(weight, weight_scale, bias, known.shape[0])
    ):
        known = _validated(weight, weight_scale, bias)
    shape = x.shape
    if (
        known is None
        or x.dtype is not FP32
        or not x.is_cpu
        or x.layout is not torch.strided
        or not x.is_contiguous()
        or not shape
        or shape[-1] != known.shape[1]
    ):
        return None
    _, _, (weight_at, scale_at, bias_at), _, (N, K) = known
    y = x.new_empty((shape[0], N) if len(shape) == 2 else (*shape[:-1], N))
    M, native = x.numel() // K, compiled.library()
    if why_not_this_processor() is not None or not mkldnn_enabled():
        failed = native.sparseq_quantized_linear(x.data_ptr(), weight_at, M, N, K, 127, scale_at, bias_at, y.data_ptr())
        return None if failed else y
    if M:
        q, scale = x.new_empty((M, K), dtype=torch.int8), x.new_empty(M)
        native.sparseq_quantize_rows(x.data_ptr(), None, M, K, 127, q.data_ptr(), scale.data_ptr())
        sums = int_mm(q, weight.t())
        native.sparseq_scale_sums(sums.data_ptr(), M, N, scale.data_ptr(), int(M > 1), scale_at, bias_at, y.data_ptr())
    return y


def _is_as_before(weight: Tensor, weight_scale: Tensor, bias: Tensor | None, N: int) -> bool:
    """Whether the constants, at known addresses, still have the dtypes and layouts that were validated."""
    return (
        weight.dtype is torch.int8
        and weight.is_contiguous()
        and weight_scale.dtype is FP32
        and weight_scale.numel() == N
        and weight_scale.is_contiguous()
        and (bias is None or (bias.dtype is FP32 and bias.numel() == N and bias.is_contiguous()))
    )


def _validated(weight: Any, weight_scale: Any, bias: Any) -> _Constants | None:
    """Validates a layer's constants and remembers them; None if native code cannot take them as they are."""
    vectors = (weight_scale,) if bias is None else (weight_scale, bias)
    for tensor, dtype, dims in ((weight, torch.int8, 2), *((vector, FP32, 1) for vector in vectors)):
        plain = type(tensor) in PLAIN_CLASSES and is_plain_tensor(tensor) and tensor.is_cpu
        if not (plain and tensor.layout is torch.strided and tensor.dtype is dtype and tensor.dim() == dims):
            return None
        # A tensor with a graph could refer to the weight, which would never be freed.
        if not tensor.is_contiguous() or tensor.grad_fn is not None:
            return None
    N, K = weight.shape
    if not N or not 1 < K <= MAX_INT8_DEPTH or len(weight_scale) != N or (bias is not None and len(bias) != N):
        return None
    way(True)  # Warns, once, where int8 layers may be slow.
    at = (weight.data_ptr(), weight_scale.data_ptr(), None if bias is None else bias.data_ptr())
    # The weight's by another tensor, so that the weight itself can end.
    memory = tuple(tensor.detach() for tensor in (weight, weight_scale, bias) if tensor is not None)
    known = _Constants(weight_scale, bias, at, memory, weight.shape)
    _known.set(weight, known)
    return known
