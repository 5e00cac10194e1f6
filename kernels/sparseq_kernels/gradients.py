"""Derivatives of the ops, as `autograd.Function`s and for torch's dispatcher.

Reverse mode and forward mode are there (`torch.autograd.grad`, `torch.func.jvp`), and neither has a derivative of its
own: what is straight-through has no meaningful second one, and asking for it is refused. So is a gradient to what has
none, such as an int8 layer's scale; and an op that is for inference alone refuses arguments that require a gradient,
for it would end there unseen.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import backends
from .derivatives import RULES
from .errors import InputError
from .looks import plain
from .ops import LIBRARY, RUN
from .schemas import ARGUMENTS, SCHEMAS, complete
from .vmaps import one_by_one

OPS = torch.ops.sparseq
Function = type[torch.autograd.Function]

# Constants to autograd, as are the indices of torch.max: straight-through arithmetic is built around them.
CONSTANT = ("quantize_rows", "magnitude_mask")
# Why the others refuse arguments that require a gradient.
_SECOND = "is a derivative, and cannot be differentiated again: sparseq's ops are once_differentiable"
_INFERENCE = "is for inference and has no gradient: call it under torch.no_grad(), or detach what requires one"
REFUSING = {
    "layer_norm_quantize_rows": _INFERENCE,
    "gelu_quantize_rows": _INFERENCE,
    "int8_embedding": "has no gradient: detach the scale",
} | {op: _SECOND for op in SCHEMAS if op.endswith("_backward")}


def _of_inputs(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """The gradients of the inputs that were given."""
    return tuple([*grads, *[None] * len(ctx.needs_input_grad)][: len(ctx.needs_input_grad)])


# The places of the tensors that an op's rule has no derivative by. A mask, being bool, cannot ask for one.
_OTHERS = {
    op: [
        place
        for place, (name, kind, _) in enumerate(ARGUMENTS[op])
        if kind in ("Tensor", "Optional[Tensor]") and name != "mask" and name not in rule.wrt
    ]
    for op, rule in RULES.items()
}


def _refuse_others(op: str, wanted: Sequence[bool]) -> None:
    """InputError where a derivative by another argument than those of the op's rule is wanted."""
    for place in _OTHERS[op]:
        if place < len(wanted) and wanted[place]:
            name, wrt = ARGUMENTS[op][place].name, ", ".join(RULES[op].wrt)
            raise InputError(f"{op}: there is no gradient for {name}, only for {wrt}: detach it")


def _set_up(op: str, ctx: Any, args: tuple[Any, ...], output: Any) -> None:
    _refuse_others(op, ctx.needs_input_grad)
    ctx.set_materialize_grads(False)
    ctx.forced = backends.forced()
    RULES[op].setup(ctx, complete(op, args), output)


def _backward(op: str) -> Callable[..., tuple[Any, ...]]:
    rule = RULES[op].backward

    def backward(ctx: Any, grad: Tensor | None, *unused: Any) -> tuple[Any, ...]:
        def run(op: str, *args: Any) -> Any:
            return _run(ctx, op, args)

        return _of_inputs(ctx, () if grad is None else rule(ctx, run, grad))

    return backward


def _function(op: str) -> Function:
    """For every mode of autograd, torch.func's transforms among them."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _set_up(op, ctx, inputs, output)
        if forward_ad._current_level < 0:
            return  # Nobody asks for a tangent, and what it needs is not kept.
        ctx.save_for_forward(*[one if isinstance(one, Tensor) else None for one in inputs])
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

    methods = {"forward": staticmethod(forward), "backward": staticmethod(_backward(op))}
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


_Tangent: Any = _refusal("the tangent of an op", _tangent, _SECOND, one_by_one(lambda *args: _Tangent.apply(*args)))
EAGER = {op: _eager(op) for op in RULES}
FUNCTIONS: dict[str, Function] = {op: _function(op) for op in RULES} | {
    op: _refusal(op, getattr(OPS, op), why, one_by_one(_applied(op))) for op, why in REFUSING.items()
}


_transforms_active = torch._C._are_functorch_transforms_active
_batched = torch._C._functorch.is_legacy_batchedtensor


def _run(ctx: Any, op: str, args: tuple[Any, ...]) -> Any:
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
    # `is_grads_batched` has a vmap of its own, older than torch.func's, which knows torch's operators alone.
    if _batched(args[0]):
        return backends.REFERENCE[op](*args)
    if plain(args):
        return RUN[op](*args)
    return (FUNCTIONS[op].apply if _transforms_active() else getattr(OPS, op))(*args)


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
            if _transforms_active():
                # It is called for one transform alone, and could not tell the others of the derivative.
                raise InputError(
                    f"torch.func's transforms do not differentiate torch.ops.sparseq.{op}: use the layers of "
                    f"sparseq.nn, or sparseq_kernels.call({op!r}, ...)"
                )
            return FUNCTIONS[op].apply(*args)
        if plain(args):  # Nothing that the dispatcher has below autograd is wanted.
            return RUN[op](*args)
        with torch._C._AutoDispatchBelowAutograd():
            return overload.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    return run


for _op in SCHEMAS:
    if _op in CONSTANT:
        LIBRARY.impl(_op, torch.library.fallthrough_kernel, "Autograd")
    else:
        LIBRARY.impl(_op, _kernel(_op), "Autograd", with_keyset=True)
