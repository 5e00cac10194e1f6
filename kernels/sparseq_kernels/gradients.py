"""Derivatives of the ops, as `autograd.Function`s and for torch's dispatcher.

Reverse mode and forward mode are each other's transpose (`torch.autograd.grad`, `torch.func.jvp`). Neither has a
derivative of its own: what is straight-through has no meaningful second one, and asking for it is refused. So is a
gradient to what has none, such as an int8 layer's scale; and an op that is for inference alone refuses arguments that
require a gradient, for it would end there unseen.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from . import backends
from .errors import InputError
from .looks import plain
from .ops import LIBRARY, RUN
from .reference.fake_quant import fake_quant_tangent
from .reference.int8_linear_backward import int8_linear_tangent
from .reference.masked_linear import masked_linear_tangent
from .reference.qat_linear import qat_linear_tangent
from .schemas import SCHEMAS, complete, names
from .vmaps import one_by_one

OPS = torch.ops.sparseq
Function = type[torch.autograd.Function]


class Rule(NamedTuple):
    """setup(ctx, args, output) keeps what backward(ctx, grad) needs, which returns the gradients of the
    first arguments, as many as may have one.

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


def _of_inputs(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """The gradients of the inputs that were given."""
    return tuple([*grads, *[None] * len(ctx.needs_input_grad)][: len(ctx.needs_input_grad)])


def _setup_fake_quant(ctx: Any, args: tuple[Any, ...], output: Any) -> None:
    x, scale, bits = args
    ctx.save_for_backward(x, scale)
    ctx.bits = bits


def _fake_quant_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, scale = ctx.saved_tensors
    grad_x, grad_scale = _run(ctx, "fake_quant_backward", grad, x, scale, ctx.bits)
    return grad_x, grad_scale


def _fake_quant_tangent(args: tuple[Any, ...], tangents: Sequence[Tensor | None]) -> Tensor:
    return fake_quant_tangent(*args, *tangents[:2])


def _setup_qat_linear(ctx: Any, args: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, mask, weight_scale, input_scale, weight_bits, input_bits, _, regrow, tiles = args
    ctx.mark_non_differentiable(*output[1:])
    # The integers, where the forward left them, take the input's place: a quarter of its bytes.
    kept = backends.residuals(x, weight, bias, weight_scale, input_scale, weight_bits, input_bits)
    saved = (None if kept.levels else x, weight, mask, weight_scale, input_scale, *output[1:])
    ctx.save_for_backward(*saved, *(tiles or ()))
    ctx.settings = (weight_bits, input_bits, x.dtype, regrow)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _qat_linear_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    need_x, need_w, need_bias, _, need_ws, need_is = _needs(ctx, 6)
    needs = [need_x, need_w, need_bias and ctx.bias_dtype is not None, need_ws, need_is]
    saved = ctx.saved_tensors
    tiles = list(saved[9:]) or None
    grads = _run(ctx, "qat_linear_backward", grad, *saved[:5], list(saved[5:9]), *ctx.settings, needs, tiles)
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


def _masked_linear_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    need_x, need_w, _, need_bias = _needs(ctx, 4)
    needs = [need_x, need_w, need_bias and ctx.bias_dtype is not None]
    saved = ctx.saved_tensors
    grads = _run(ctx, "masked_linear_backward", grad, *saved[:3], ctx.regrow, needs, list(saved[3:]) or None)
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

    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        x, weight_scale, bias, input_scale = saved[:4]
        all_needs = _needs(ctx, end + 2)
        needs = [all_needs[0], all_needs[end + 1]]
        scales = (weight_scale, bias, input_scale)
        grads = _run(ctx, "int8_linear_backward", grad, x, list(saved[4:]), format, *scales, *ctx.settings, needs)
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
# Constants to autograd, as are the indices of torch.max: straight-through arithmetic is built around them.
CONSTANT = ("quantize_rows", "magnitude_mask")
# Why the others refuse arguments that require a gradient.
_SECOND = "has no derivative: that of sparseq's gradients is refused, as of a function that is once_differentiable"
_INFERENCE = "is for inference and has no gradient: call it under torch.no_grad(), or detach what requires one"
REFUSING = {
    "layer_norm_quantize_rows": _INFERENCE,
    "gelu_quantize_rows": _INFERENCE,
    "int8_embedding": "has no gradient: detach the scale",
} | {op: _SECOND for op in SCHEMAS if op.endswith("_backward")}


def _refuse_others(op: str, wanted: Sequence[Any]) -> None:
    """InputError where a derivative by another argument than those of the op's rule is wanted."""
    for name, want in zip(names(op), wanted, strict=False):
        if (any(want) if isinstance(want, list | tuple) else want) and name not in RULES[op].wrt:
            raise InputError(f"{op}: there is no gradient for {name}, only for {', '.join(RULES[op].wrt)}: detach it")


def _set_up(op: str, ctx: Any, args: tuple[Any, ...], output: Any) -> None:
    _refuse_others(op, ctx.needs_input_grad)
    ctx.set_materialize_grads(False)
    ctx.forced = backends.forced()
    RULES[op].setup(ctx, complete(op, args), output)


def _backward(op: str) -> Callable[..., tuple[Any, ...]]:
    rule = RULES[op].backward

    def backward(ctx: Any, grad: Tensor | None, *unused: Any) -> tuple[Any, ...]:
        return _of_inputs(ctx, () if grad is None else rule(ctx, grad))

    return backward


def _function(op: str) -> Function:
    """For every mode of autograd, torch.func's transforms among them."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _set_up(op, ctx, inputs, output)
        tensors = [one if isinstance(one, Tensor) else None for one in inputs]
        ctx.save_for_forward(*tensors)
        ctx.constants = [None if isinstance(one, Tensor) else one for one in inputs]
        ctx.outputs = 1 if isinstance(output, Tensor) else len(output)
        ctx.out_dtype = output.dtype if isinstance(output, Tensor) else output[0].dtype

    def jvp(ctx: Any, *tangents: Any) -> Any:
        given = [one if isinstance(one, Tensor) else None for one in tangents]
        _refuse_others(op, [one is not None for one in given])
        pairs = zip(ctx.saved_tensors, ctx.constants, strict=True)
        args = complete(op, tuple(constant if tensor is None else tensor for tensor, constant in pairs))
        given += [None] * (len(args) - len(given))
        tangent = _Tangent.apply(op, ctx.out_dtype, len(args), *args, *given)
        return tangent if ctx.outputs == 1 else (tangent, *[None] * (ctx.outputs - 1))

    methods = {
        "forward": staticmethod(getattr(OPS, op)),
        "setup_context": staticmethod(setup_context),
        "backward": staticmethod(_backward(op)),
        "jvp": staticmethod(jvp),
        "vmap": staticmethod(one_by_one(_applied(op))),
    }
    return type(op, (torch.autograd.Function,), methods)


def _eager(op: str) -> Function:
    """For plain reverse mode. A `setup_context` of its own, which the other modes need, takes torch longer to call than
    all else here."""

    def forward(ctx: Any, *args: Any) -> Any:
        output = RUN[op](*args)
        _set_up(op, ctx, args, output)
        return output

    methods = {"forward": staticmethod(forward), "backward": staticmethod(once_differentiable(_backward(op)))}
    return type(op, (torch.autograd.Function,), methods)


def _refusal(name: str, forward: Callable[..., Any], why: str, vmap: Callable[..., Any]) -> Function:
    """A function whose derivative in any mode is an InputError."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        results = output if isinstance(output, tuple | list) else (output,)
        ctx.mark_non_differentiable(*[one for one in results if not one.is_floating_point()])

    def refuse(ctx: Any, *unused: Any) -> Any:
        raise InputError(f"{name} {why}")

    methods = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(setup_context),
        "backward": staticmethod(refuse),
        "jvp": staticmethod(refuse),
        "vmap": staticmethod(vmap),
    }
    return type(name, (torch.autograd.Function,), methods)


def _tangent(op: str, dtype: torch.dtype, count: int, *args: Any) -> Tensor:
    return RULES[op].tangent(args[:count], args[count:]).to(dtype)


def _applied(op: str) -> Callable[..., Any]:
    return lambda *args: FUNCTIONS[op].apply(*args)


_Tangent: Any = _refusal("the forward derivative", _tangent, _SECOND, one_by_one(lambda *args: _Tangent.apply(*args)))
EAGER = {op: _eager(op) for op in RULES}
FUNCTIONS: dict[str, Function] = {op: _function(op) for op in RULES} | {
    op: _refusal(op, getattr(OPS, op), why, one_by_one(_applied(op))) for op, why in REFUSING.items()
}


def _run(ctx: Any, op: str, *args: Any) -> Any:
    """An op within another's backward, on the backend of its forward: autograd may run it in another thread."""
    if torch.compiler.is_compiling():
        return getattr(OPS, op)(*args)
    if backends.forced() is ctx.forced:
        return _run_here(op, args)
    with backends.scope(ctx.forced):
        return _run_here(op, args)


def _run_here(op: str, args: tuple[Any, ...]) -> Any:
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
        return FUNCTIONS[op].apply(*args)
    if plain(args):
        return RUN[op](*args)
    return (FUNCTIONS[op].apply if torch._C._are_functorch_transforms_active() else getattr(OPS, op))(*args)


def differentiated(args: Sequence[Any]) -> bool:
    """Whether a derivative by any of the tensors is to be kept, in reverse or in forward mode."""
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
        return True
    return forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled() and any(map(_has_tangent, args))


def _has_tangent(arg: Any) -> bool:
    if isinstance(arg, list | tuple):
        return any(map(_has_tangent, arg))
    return isinstance(arg, Tensor) and forward_ad.unpack_dual(arg).tangent is not None


def _kernel(op: str) -> Callable[..., Any]:
    """What torch's dispatcher calls for autograd."""
    overload = getattr(OPS, op).default

    def run(keyset: Any, *args: Any) -> Any:
        if differentiated(args):
            if op in REFUSING and not op.endswith("_backward"):
                raise InputError(f"{op} {REFUSING[op]}")
            return FUNCTIONS[op].apply(*args)
        with torch._C._AutoDispatchBelowAutograd():
            return overload.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    return run


for _op in SCHEMAS:
    if _op in CONSTANT:
        LIBRARY.impl(_op, torch.library.fallthrough_kernel, "Autograd")
    else:
        LIBRARY.impl(_op, _kernel(_op), "Autograd", with_keyset=True)
