"""Every op once: schema, what it computes, and its fake (shape-only) version. Importing this module registers
`torch.ops.sparseq.*`; autograd, autocast and vmap are in `transforms`.

Shapes: x [..., K] activations, weight [N, K], mask [N, K] bool (True is kept), y [..., N]. Optional scales: given, they
are used; absent, they come from the maximum (`numerics`). Results are contiguous, whatever the layout of the arguments.
tiles: `tiles.TileLists.tensors()` of the mask, by which a GPU leaves out the tiles that keep nothing: what of x meets
them then has no part in the result, NaN and Inf included. The other backends ignore it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .backends import implementation, residuals
from .checks import CHECKS
from .numerics import compute_dtype, storage_dtype
from .reference.int8_linear import result_dtype

LIBRARY = torch.library.Library("sparseq", "DEF")
SCHEMAS = {
    # q = round(x / s) in [-qmax, qmax], s = max|x| / qmax for each row: (q int8 or int16 [..., K], s fp32 [...]).
    "quantize_rows": "(Tensor x, int bits=8) -> (Tensor, Tensor)",
    # quantize_rows(y) of y = layer_norm(x + residual) over the last dimension, and of y = gelu(x), y rounded to x's
    # dtype: what feeds a quantized layer in BERT, quantized where it is made. The first returns y too.
    "layer_norm_quantize_rows": (
        "(Tensor x, Tensor? residual, Tensor weight, Tensor bias, float eps=1e-12, int bits=8)"
        " -> (Tensor, Tensor, Tensor)"
    ),
    "gelu_quantize_rows": "(Tensor x, str approximate='none', int bits=8) -> (Tensor, Tensor)",
    # clamp(round(x / s), -qmax, qmax) * s; `scale` is a scalar or broadcasts against x. Gradient: straight-through
    # inside the clip range for x, LSQ's for the scale.
    "fake_quant": "(Tensor x, Tensor scale, int bits=8) -> Tensor",
    "fake_quant_backward": "(Tensor grad, Tensor x, Tensor scale, int bits) -> (Tensor, Tensor)",
    # y = Q(x) Q(weight o mask)^T + bias with Q = quantize, then dequantize; up to 8 bits on both sides the product is
    # of integers. `input_scale` is per tensor, `weight_scale` [N]. regrow: masked weights receive the dense gradient.
    # Returns y and what the backward may use: integers and scales of x and of the weight. A backend that keeps the
    # integers needs no x, which has four times the bytes; one that recomputes them returns none, and scales alone.
    "qat_linear": (
        "(Tensor x, Tensor weight, Tensor? bias=None, Tensor? mask=None, Tensor? weight_scale=None, "
        "Tensor? input_scale=None, int weight_bits=8, int input_bits=8, ScalarType? out_dtype=None, bool regrow=False, "
        "Tensor[]? tiles=None)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    "qat_linear_backward": (
        "(Tensor grad, Tensor? x, Tensor weight, Tensor? mask, Tensor? weight_scale, Tensor? input_scale, "
        "Tensor[] residuals, int weight_bits, int input_bits, ScalarType input_dtype, bool regrow, bool[] needs, "
        "Tensor[]? tiles=None)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
    # y = act((q_x q_w^T) s_x s_w + bias), weight int8 [N, K] and its scale fp32 [N]; x is quantized by row, or by the
    # static `input_scale`, or is int8 already (then `input_scale` is its scale: a row each, or one). With an
    # `output_scale` y comes as int8 of that one scale, for the next layer.
    "int8_linear": (
        "(Tensor x, Tensor weight, Tensor weight_scale, Tensor? bias=None, Tensor? input_scale=None, "
        "str activation='none', ScalarType? out_dtype=None, Tensor? output_scale=None) -> Tensor"
    ),
    # int8_linear with a weight of which only what is kept is stored (`reference.sparse_int8_linear`): whole blocks
    # [blocks, R, C], row by row of blocks, with the column of blocks of each, where each row of blocks begins, and the
    # rows of blocks by descending length; single values, row by row, with one bit a weight [N, ceil(K / 8)], and where
    # each 256 columns of a row begin; or two of every four [N, K / 2], with four bits a four [N, ceil(K / 8)].
    "block_sparse_int8_linear": (
        "(Tensor x, Tensor values, Tensor block_columns, Tensor offsets, Tensor order, Tensor weight_scale, "
        "Tensor? bias=None, Tensor? input_scale=None, str activation='none', ScalarType? out_dtype=None) -> Tensor"
    ),
    "bitmask_int8_linear": (
        "(Tensor x, Tensor values, Tensor bits, Tensor offsets, Tensor weight_scale, "
        "Tensor? bias=None, Tensor? input_scale=None, str activation='none', ScalarType? out_dtype=None) -> Tensor"
    ),
    "semi_structured_int8_linear": (
        "(Tensor x, Tensor values, Tensor indices, Tensor weight_scale, "
        "Tensor? bias=None, Tensor? input_scale=None, str activation='none', ScalarType? out_dtype=None) -> Tensor"
    ),
    # weight[indices] * scale[indices]: int8 or int16 [V, D], fp32 [V] -> [..., D].
    "int8_embedding": "(Tensor indices, Tensor weight, Tensor scale, ScalarType? out_dtype=None) -> Tensor",
    # y = x (weight o mask)^T + bias, with dW = (dY^T X) o mask (dense under `regrow`), multiplied in x's dtype.
    "masked_linear": (
        "(Tensor x, Tensor weight, Tensor mask, Tensor? bias=None, bool regrow=False, Tensor[]? tiles=None) -> Tensor"
    ),
    "masked_linear_backward": (
        "(Tensor grad, Tensor x, Tensor weight, Tensor mask, bool regrow, bool[] needs, Tensor[]? tiles=None)"
        " -> (Tensor, Tensor, Tensor)"
    ),
    # The boolean masks that keep the largest magnitudes of the weights together: exactly round(sparsity * units) units
    # (weights, or blocks by mean magnitude) are dropped over all of them, the lower index first among equals.
    "magnitude_mask": "(Tensor[] weights, float sparsity, str pattern='unstructured') -> Tensor[]",
}


def _device_of(args: tuple[Any, ...]) -> str:
    first = args[0]
    device: str = (first[0] if isinstance(first, list) else first).device.type
    return device


def complete(op: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with their defaults, which the dispatcher leaves out of a Python kernel's call."""
    return args + _DEFAULTS[op][len(args) :]


def _dispatcher(op: str) -> Callable[..., Any]:
    check = CHECKS.get(op)

    def run(*args: Any) -> Any:
        args = complete(op, args)
        if check is not None:
            check(*args)
        results = implementation(op, _device_of(args))(*args)
        if isinstance(results, tuple | list):
            return type(results)([result.contiguous() for result in results])
        return results.contiguous()

    return run


def _fake(op: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return torch.library.register_fake(f"sparseq::{op}", lib=LIBRARY)


# Each op without torch's dispatcher before it: on tensors that hold values, and without autograd.
RUN: dict[str, Callable[..., Any]] = {}
# The default of each argument; None for those that have none, which are always given.
_DEFAULTS: dict[str, tuple[Any, ...]] = {}
for _op, _schema in SCHEMAS.items():
    LIBRARY.define(_op + _schema, tags=(torch.Tag.pt2_compliant_tag,))
    _DEFAULTS[_op] = tuple(a.default_value for a in getattr(torch.ops.sparseq, _op).default._schema.arguments)
    RUN[_op] = _dispatcher(_op)
    for _key in ("CPU", "CUDA"):
        LIBRARY.impl(_op, RUN[_op], _key)


def _quantized_like(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    scale = torch.empty(x.shape[:-1], dtype=compute_dtype(x), device=x.device)
    return torch.empty(x.shape, dtype=storage_dtype(bits), device=x.device), scale


@_fake("quantize_rows")
def _(x: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    return _quantized_like(x, bits)


@_fake("layer_norm_quantize_rows")
def _(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, eps: float = 1e-12, bits: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    return *_quantized_like(x, bits), torch.empty(x.shape, dtype=x.dtype, device=x.device)


@_fake("gelu_quantize_rows")
def _(x: Tensor, approximate: str = "none", bits: int = 8) -> tuple[Tensor, Tensor]:
    return _quantized_like(x, bits)


@_fake("fake_quant")
def _(x: Tensor, scale: Tensor, bits: int = 8) -> Tensor:
    return torch.empty(torch.broadcast_shapes(x.shape, scale.shape), dtype=x.dtype, device=x.device)


@_fake("fake_quant_backward")
def _(grad: Tensor, x: Tensor, scale: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    return torch.empty(x.shape, dtype=grad.dtype, device=x.device), scale.new_empty(scale.shape)


def _linear_shape(x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=dtype, device=x.device)


@_fake("qat_linear")
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    weight_scale: Tensor | None = None,
    input_scale: Tensor | None = None,
    weight_bits: int = 8,
    input_bits: int = 8,
    out_dtype: torch.dtype | None = None,
    regrow: bool = False,
    tiles: list[Tensor] | None = None,
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


@_fake("qat_linear_backward")
def _(
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
    tiles: list[Tensor] | None = None,
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


@_fake("int8_linear")
def _(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    input_scale: Tensor | None = None,
    activation: str = "none",
    out_dtype: torch.dtype | None = None,
    output_scale: Tensor | None = None,
) -> Tensor:
    return _linear_shape(x, weight, result_dtype(x, out_dtype, output_scale))


def _fake_sparse(op: str) -> None:
    names = [argument.name for argument in getattr(torch.ops.sparseq, op).default._schema.arguments]

    @_fake(op)
    def _(*args: Any, **named: Any) -> Tensor:
        given = dict(zip(names, args, strict=False)) | named
        x, outputs = given["x"], given["weight_scale"].shape[0]
        return torch.empty((*x.shape[:-1], outputs), dtype=result_dtype(x, given.get("out_dtype")), device=x.device)


for _op in ("block_sparse_int8_linear", "bitmask_int8_linear", "semi_structured_int8_linear"):
    _fake_sparse(_op)


@_fake("int8_embedding")
def _(indices: Tensor, weight: Tensor, scale: Tensor, out_dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty((*indices.shape, weight.shape[1]), dtype=out_dtype or scale.dtype, device=weight.device)


@_fake("masked_linear")
def _(
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None = None,
    regrow: bool = False,
    tiles: list[Tensor] | None = None,
) -> Tensor:
    return _linear_shape(x, weight, x.dtype)


@_fake("masked_linear_backward")
def _(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    mask: Tensor,
    regrow: bool,
    needs: list[bool],
    tiles: list[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        _needed(grad, x.shape, needs[0]),
        _needed(grad, weight.shape, needs[1], weight.dtype),
        _needed(grad, weight.shape[:1], needs[2]),
    )


@_fake("magnitude_mask")
def _(weights: list[Tensor], sparsity: float, pattern: str = "unstructured") -> list[Tensor]:
    return [torch.empty(w.shape, dtype=torch.bool, device=w.device) for w in weights]
