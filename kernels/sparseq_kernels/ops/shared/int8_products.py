"""What the int8 products share: validation, gradients and backward, whatever the format of their weight.

Their schemas differ in the tensors of the weight alone, which stand between x and weight_scale.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ... import validation as valid
from ...autograd import needed_gradients
from ...dispatch import Op, output_autocast
from ...errors import InputError
from ...flops import linear, product
from ...numerics import ACTIVATIONS, check_depth, compute_dtype, given_scale, result_dtype
from .fakes import if_needed, linear_output


def schema(weight: str, more: str = "") -> str:
    """The schema of a product. weight: its weight's tensors. more: arguments after out_dtype."""
    rest = "Tensor? bias=None, Tensor? input_scale=None, str activation='none', ScalarType? out_dtype=None"
    return f"(Tensor x, {weight}, Tensor weight_scale, {rest}{more}) -> Tensor"


def backward_schema(weight: str) -> str:
    """The schema of a product's backward, which returns the gradients of x and bias."""
    rest = "Tensor? bias, Tensor? input_scale, str activation, int in_features, ScalarType input_dtype, bool[] needs"
    return f"(Tensor grad, Tensor? x, {weight}, Tensor weight_scale, {rest}) -> (Tensor, Tensor)"


Validation = Callable[[str, int, tuple[Tensor, ...], Tensor], None]


def define_product(op: Op, backward: Op, validate_weight: Validation, tangent: Callable[..., Tensor]) -> None:
    """Defines all of a product's op and of its backward's but what reads the values of its weight.

    validate_weight: function(op name, in_features, weight's tensors, weight_scale), which raises InputError.
    tangent: the reference's forward-mode derivative.
    """
    count = op.names.index("weight_scale") - 1

    @op.validate
    def _(name: str, x: Tensor, *args: Any) -> None:
        weight, (weight_scale, bias, input_scale, activation, out_dtype, *output_scale) = args[:count], args[count:]
        valid.rows(name, "x", x)
        validate_weight(name, x.shape[-1], weight, weight_scale)
        for scale in output_scale:
            valid.one_value(name, "output_scale", scale)
        _validate_product(name, x, weight_scale, bias, input_scale, activation, out_dtype)

    @backward.validate
    def _(name: str, grad: Tensor, x: Tensor | None, *args: Any) -> None:
        weight_scale, bias, input_scale, activation, in_features, input_dtype, needs = args[count:]
        validate_weight(name, in_features, args[:count], weight_scale)
        valid.floating(name, "grad", grad)
        valid.rows(name, "grad", grad)
        valid.shape(name, "grad", grad, (*grad.shape[:-1], weight_scale.shape[0]))
        valid.needs(name, needs, "x, bias")
        if needs[0]:
            valid.floating_dtype(name, "input_dtype", input_dtype)
        if x is not None:
            valid.dtype(name, "x", x, input_dtype)
            valid.shape(name, "x", x, (*grad.shape[:-1], in_features))
            _validate_product(name, x, weight_scale, bias, input_scale, activation, None)
        elif input_scale is not None or activation != "none":
            raise InputError(f"{name}: x must be given beside an activation or an input_scale")
        else:
            _validate_weight_side(name, in_features, weight_scale, bias)

    @op.fake
    def _(x: Tensor, *args: Any) -> Tensor:
        weight_scale, _, _, _, out_dtype, *output_scale = args[count:]
        return linear_output(x, weight_scale, result_dtype(x, out_dtype, *output_scale))

    @backward.fake
    def _(grad: Tensor, x: Tensor | None, *args: Any) -> tuple[Tensor, Tensor]:
        weight_scale, _, _, _, in_features, input_dtype, needs = args[count:]
        return (
            if_needed(grad, (*grad.shape[:-1], in_features), needs[0], input_dtype),
            if_needed(grad, weight_scale.shape, needs[1], compute_dtype(grad)),
        )

    @op.setup_context
    def _(ctx: Any, args: tuple[Any, ...], output: Tensor) -> None:
        x, weight, (weight_scale, bias, input_scale, activation) = args[0], args[1 : count + 1], args[count + 1 :][:4]
        if not output.is_floating_point():
            raise InputError(
                f"{op.name}: an integer output has no gradient: leave output_scale out, or detach the input"
            )
        # Without an activation nothing of the input is saved, as for a frozen nn.Linear.
        saved = x if input_scale is not None or activation != "none" else None
        ctx.save_for_backward(saved, *weight, weight_scale, bias, input_scale)
        ctx.settings = (activation, x.shape[-1], x.dtype)

    @op.backward
    def _(ctx: Any, run: Any, grad: Tensor) -> Sequence[Tensor | None]:
        needed = needed_gradients(ctx, count + 3)
        needs = [needed[0], needed[count + 2]]
        x, *rest = ctx.saved_tensors
        grad_x, grad_bias = run(backward, grad, x, *rest, *ctx.settings, needs)
        bias = rest[count + 1]
        return (
            grad_x if needs[0] else None,
            *[None] * (count + 1),
            grad_bias.to(bias.dtype) if needs[1] else None,
        )

    @op.tangent
    def _(args: tuple[Any, ...], tangents: Sequence[Tensor | None]) -> Tensor:
        return tangent(*args[: count + 5], tangents[0], tangents[count + 2])

    op.autocast(output_autocast)
    op.flops(linear)

    @backward.flops
    def _(grad: Sequence[int], x: Any, values: Sequence[int], *rest: Any, **_: Any) -> int:
        activation, needs = rest[count + 2], rest[count + 5]
        stored = 1
        for size in values:
            stored *= size
        return product(grad, stored) * (bool(needs[0]) + (activation != "none"))


def _validate_product(
    op: str,
    x: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
) -> None:
    """x [..., K] and weight_scale [N], with what goes with them."""
    if x.dtype == torch.int8:
        _validate_input_scale(op, given_scale(input_scale), x.shape[:-1].numel())
    else:
        valid.floating(op, "x", x)
        valid.one_value(op, "input_scale", input_scale)
    _validate_weight_side(op, x.shape[-1], weight_scale, bias)
    valid.choice(op, "activation", activation, ACTIVATIONS)
    valid.floating_dtype(op, "out_dtype", out_dtype)


def _validate_weight_side(op: str, inputs: int, weight_scale: Tensor, bias: Tensor | None) -> None:
    check_depth(inputs)
    valid.floating(op, "weight_scale", weight_scale)
    valid.floating(op, "bias", bias)
    valid.shape(op, "bias", bias, weight_scale.shape)


def _validate_input_scale(op: str, scale: Tensor, count: int) -> None:
    valid.floating(op, "input_scale", scale)
    if not (scale.numel() == count or scale.numel() == 1):
        each = f" or one for each of {count} rows" if count != 1 else ""
        raise InputError(f"{op}: input_scale must be one value{each}, not {scale.numel()}")


def validate_stored(
    op: str, stored: Sequence[Tensor], expected: dict[str, tuple[torch.dtype, tuple[int, ...]]]
) -> None:
    """Raises InputError unless a weight's tensors have the expected dtypes and shapes, by name."""
    for tensor, (name, (dtype, shape)) in zip(stored, expected.items(), strict=True):
        valid.dtype(op, name, tensor, dtype)
        valid.shape(op, name, tensor, shape)


def validate_scale_vector(op: str, weight_scale: Tensor) -> None:
    """Raises InputError unless weight_scale is a vector."""
    if weight_scale.dim() != 1:
        raise InputError(f"{op}: weight_scale must be a vector, not of shape {tuple(weight_scale.shape)}")
