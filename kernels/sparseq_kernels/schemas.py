"""What each op is called with and what it returns; `ops` registers them.

Shapes: x [..., K] activations, weight [N, K], mask [N, K] bool (True is kept), y [..., N]. Optional scales: given, they
are used; absent, they come from the maximum (`numerics`). Results are contiguous, whatever the layout of the arguments.
tiles: `block_index.BlockIndex.tensors()` of the mask, by which a GPU skips the blocks that keep nothing: values of x
that meet only such blocks do not affect the result, NaN and Inf included. The other backends ignore it.

Gradients: x, weight, bias, LSQ's scales of the ops that train; x and bias of the int8 products (straight-through, zero
where a static `input_scale` clips). Integers, and the scales that are returned beside them, are constants to autograd,
like the indices of torch.max. What would end a gradient unseen is refused (`gradients`).
"""

from typing import Any, NamedTuple

import torch

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
    # The gradients of x and of the bias of all four int8 products, straight-through. `stored`: the tensors between x
    # and weight_scale in the schema of the product; format: "dense", "block_sparse", "bitmask" or "semi_structured". x
    # is needed only with an activation or an `input_scale`.
    "int8_linear_backward": (
        "(Tensor grad, Tensor? x, Tensor[] stored, str format, Tensor weight_scale, Tensor? bias, Tensor? input_scale, "
        "str activation, int in_features, ScalarType input_dtype, bool[] needs) -> (Tensor, Tensor)"
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


class Argument(NamedTuple):
    """type: as in torch's schemas ("Tensor", "Optional[Tensor]", "List[bool]", ...). default: None if there is none."""

    name: str
    type: str
    default: Any


def _arguments(op: str, schema: str) -> tuple[Argument, ...]:
    parsed = torch._C.parse_schema(f"sparseq::{op}{schema}")
    return tuple(Argument(a.name, str(a.real_type), a.default_value) for a in parsed.arguments)


ARGUMENTS = {op: _arguments(op, schema) for op, schema in SCHEMAS.items()}
_DEFAULTS = {op: tuple(argument.default for argument in arguments) for op, arguments in ARGUMENTS.items()}


def complete(op: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with their defaults, which the dispatcher leaves out of a Python kernel's call."""
    return args + _DEFAULTS[op][len(args) :]


def names(op: str) -> list[str]:
    """The names of an op's arguments."""
    return [argument.name for argument in ARGUMENTS[op]]
