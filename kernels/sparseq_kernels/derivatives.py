"""The derivative of each op that has one, in reverse and in forward mode, which are each other's transpose.

How torch gets to them is in `gradients`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .backends import residuals
from .errors import InputError
from .reference.fake_quant import fake_quant_tangent
from .reference.int8_linear_backward import int8_linear_tangent
from .reference.masked_linear import masked_linear_tangent
from .reference.qat_linear import qat_linear_tangent
from .schemas import names

Run = Callable[..., Any]


class Rule(NamedTuple):
    """setup(ctx, args, output) keeps what backward(ctx, run, grad) needs, which returns the gradients of the
    first arguments, as many as may have one.

    run(op, *args) runs the op of the backward.

    tangent(args, tangents) is the forward derivative of the first result, by the arguments' own (None where there is
    none). wrt: the arguments that have a derivative; for another one it is refused.
    """

    wrt: tuple[str, ...]
    setup: Callable[[Any, tuple[Any, ...], Any], None]
    backward: Callable[..., tuple[Any, ...]]
    tangent: Callable[[tuple[Any, ...], Sequence[Tensor | None]], Tensor]


def _needs(ctx: Any, count: int) -> tuple[bool, ...]:
    """Which of the first `count` inputs want a gradient; inputs left at their defaults are not counted by autograd."""
    return (*ctx.needs_input_grad, *[False] * count)[:count]


def _setup_fake_quant(ctx: Any, args: tuple[Any, ...], output: Any) -> None:
    x, scale, bits = args
    ctx.save_for_backward(x, scale)
    ctx.bits = bits


def _fake_quant_backward(ctx: Any, run: Run, grad: Tensor) -> tuple[Any, ...]:
    x, scale = ctx.saved_tensors
    grad_x, grad_scale = run("fake_quant_backward", grad, x, scale, ctx.bits)
    return grad_x, grad_scale


def _fake_quant_tangent(args: tuple[Any, ...], tangents: Sequence[Tensor | None]) -> Tensor:
    return fake_quant_tangent(*args, *tangents[:2])


def _setup_qat_linear(ctx: Any, args: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, mask, weight_scale, input_scale, weight_bits, input_bits, _, regrow, tiles = args
    ctx.mark_non_differentiable(*output[1:])
    # The integers, where the forward left them, take the input's place: a quarter of its bytes.
    kept = residuals(x, weight, bias, weight_scale, input_scale, weight_bits, input_bits)
    saved = (None if kept.levels else x, weight, mask, weight_scale, input_scale, *output[1:])
    ctx.save_for_backward(*saved, *(tiles or ()))
    ctx.settings = (weight_bits, input_bits, x.dtype, regrow)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _qat_linear_backward(ctx: Any, run: Run, grad: Tensor) -> tuple[Any, ...]:
    need_x, need_w, need_bias, _, need_ws, need_is = _needs(ctx, 6)
    needs = [need_x, need_w, need_bias and ctx.bias_dtype is not None, need_ws, need_is]
    saved = ctx.saved_tensors
    tiles = list(saved[9:]) or None
    grads = run("qat_linear_backward", grad, *saved[:5], list(saved[5:9]), *ctx.settings, needs, tiles)
    grad_x, grad_w, grad_bias, grad_ws, grad_is = (g if need else None for g, need in zip(grads, needs, strict=True))
    grad_bias = None if grad_bias is None else grad_bias.to(ctx.bias_dtype)
    return grad_x, grad_w, grad_bias, None, grad_ws, grad_is


def _qat_linear_tangent(args: tuple[Any, ...], tangents: Sequence[Tensor | None]) -> Tensor:
    x, weight, _, mask, weight_scale, input_scale, weight_bits, input_bits, _, regrow, _ = args
    settings = (weight_scale, input_scale, weight_bits, input_bits, regrow)
    return qat_linear_tangent(x, weight, mask, *settings, [*tangents[:3], *tangents[4:6]])


def _setup_masked_linear(ctx: Any, args: tuple[Any, ...], output: Any) -> None:
    x, weight, mask, bias, regrow, tiles = args
    ctx.save_for_backward(x, weight, mask, *(tiles or ()))
    ctx.regrow = regrow
    ctx.bias_dtype = None if bias is None else bias.dtype


def _masked_linear_backward(ctx: Any, run: Run, grad: Tensor) -> tuple[Any, ...]:
    need_x, need_w, _, need_bias = _needs(ctx, 4)
    needs = [need_x, need_w, need_bias and ctx.bias_dtype is not None]
    saved = ctx.saved_tensors
    grads = run("masked_linear_backward", grad, *saved[:3], ctx.regrow, needs, list(saved[3:]) or None)
    grad_x, grad_w, grad_bias = (g if need else None for g, need in zip(grads, needs, strict=True))
    grad_bias = None if grad_bias is None else grad_bias.to(ctx.bias_dtype)
    return grad_x, grad_w, None, grad_bias


def _masked_linear_tangent(args: tuple[Any, ...], tangents: Sequence[Tensor | None]) -> Tensor:
    x, weight, mask, _, regrow, _ = args
    return masked_linear_tangent(x, weight, mask, regrow, tangents[0], tangents[1], tangents[3])


def _int8_rule(op: str, format: str) -> Rule:
    """Of a product with an int8 weight, whose tensors stand between x and weight_scale."""
    end = names(op).index("weight_scale")

    def setup(ctx: Any, args: tuple[Any, ...], output: Tensor) -> None:
        x, weight_scale, bias, input_scale, activation = args[0], *args[end : end + 4]
        if not output.is_floating_point():
            raise InputError(f"{op}: an integer output has no gradient: leave output_scale out, or detach the input")
        # A layer without an activation keeps nothing of its input, as a frozen nn.Linear keeps nothing.
        wanted = x if input_scale is not None or activation != "none" else None
        ctx.save_for_backward(wanted, weight_scale, bias, input_scale, *args[1:end])
        ctx.settings = (activation, x.shape[-1], x.dtype)

    def backward(ctx: Any, run: Run, grad: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        x, weight_scale, bias, input_scale = saved[:4]
        all_needs = _needs(ctx, end + 2)
        needs = [all_needs[0], all_needs[end + 1]]
        scales = (weight_scale, bias, input_scale)
        grads = run("int8_linear_backward", grad, x, list(saved[4:]), format, *scales, *ctx.settings, needs)
        found: list[Tensor | None] = [None] * (end + 2)
        if needs[0]:
            found[0] = grads[0]
        if needs[1]:
            found[end + 1] = grads[1].to(bias.dtype)
        return tuple(found)

    def tangent(args: tuple[Any, ...], tangents: Sequence[Tensor | None]) -> Tensor:
        weight_scale, bias, input_scale, activation = args[end : end + 4]
        settings = (weight_scale, bias, input_scale, activation)
        return int8_linear_tangent(args[0], list(args[1:end]), format, *settings, tangents[0], tangents[end + 1])

    return Rule(("x", "bias"), setup, backward, tangent)


RULES = {
    "fake_quant": Rule(("x", "scale"), _setup_fake_quant, _fake_quant_backward, _fake_quant_tangent),
    "qat_linear": Rule(
        ("x", "weight", "bias", "weight_scale", "input_scale"),
        _setup_qat_linear,
        _qat_linear_backward,
        _qat_linear_tangent,
    ),
    "masked_linear": Rule(
        ("x", "weight", "bias"), _setup_masked_linear, _masked_linear_backward, _masked_linear_tangent
    ),
    "int8_linear": _int8_rule("int8_linear", "dense"),
    "block_sparse_int8_linear": _int8_rule("block_sparse_int8_linear", "block_sparse"),
    "bitmask_int8_linear": _int8_rule("bitmask_int8_linear", "bitmask"),
    "semi_structured_int8_linear": _int8_rule("semi_structured_int8_linear", "semi_structured"),
}
