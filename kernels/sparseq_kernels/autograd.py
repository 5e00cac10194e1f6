"""Autograd of the ops: one `torch.autograd.Function` an op, for every mode of differentiation.

The same Function serves eager calls, the dispatcher (and so torch.compile and torch.export) and torch.func's
transforms. Reverse and forward mode are there; neither can be differentiated again. A gradient for an argument that has
none is refused, and so is one through an op for inference: it would end there without a message.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from . import backends
from .errors import InputError
from .registry import OpDefinition
from .torch_internals import any_requires_grad, forward_mode_active, functorch_active, is_legacy_batched, is_plain
from .vmap import one_by_one

# A subclass of `torch.autograd.Function`, whose `apply` has no type that depends on its `forward`.
Function = Any
Run = Callable[..., Any]

NO_SECOND = "is a derivative, and cannot be differentiated again: sparseq's ops are once_differentiable"
INFERENCE_ONLY = "is for inference and has no gradient: call it under torch.no_grad(), or detach what requires one"


def needed_gradients(ctx: Any, count: int) -> tuple[bool, ...]:
    """Which of the first `count` inputs need a gradient. Autograd does not count inputs left at their defaults."""
    return (*ctx.needs_input_grad, *[False] * count)[:count]


def make_function(op: OpDefinition, packet: Run, run: Run) -> Function:
    """The Function of an op. packet: `torch.ops.sparseq.<op>`. run: the op itself, below autograd."""
    if op.no_gradient is not None:
        return _refusing(op.name, packet, op.no_gradient)
    others = _without_gradient(op)

    def refuse_others(wanted: Sequence[bool]) -> None:
        for place, name in others:
            if place < len(wanted) and wanted[place]:
                raise InputError(
                    f"{op.name}: there is no gradient for {name}, only for {', '.join(op.differentiable)}: detach it"
                )

    def forward(*args: Any) -> Any:
        return run(*args) if is_plain(args) else packet(*args)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        assert op.setup_context_function is not None
        refuse_others(ctx.needs_input_grad)
        ctx.set_materialize_grads(False)
        ctx.forced = backends.forced()
        op.setup_context_function(ctx, op.complete(inputs), output)
        if not forward_mode_active():
            return  # No tangent will be asked for: save nothing for one.
        ctx.save_for_forward(*[one if isinstance(one, Tensor) else None for one in inputs])
        ctx.constants = [None if isinstance(one, Tensor) else one for one in inputs]
        ctx.outputs = 1 if isinstance(output, Tensor) else len(output)
        ctx.out_dtype = output.dtype if isinstance(output, Tensor) else output[0].dtype

    def backward(ctx: Any, grad: Tensor | None, *unused: Any) -> tuple[Any, ...]:
        assert op.backward_function is not None
        count = len(ctx.needs_input_grad)
        if grad is None:
            return (None,) * count
        found = op.backward_function(ctx, lambda op, *args: _run_in_backward(ctx, op, args), grad)
        return tuple([*found, *[None] * count][:count])

    def jvp(ctx: Any, *tangents: Any) -> Any:
        given = [one if isinstance(one, Tensor) else None for one in tangents]
        refuse_others([one is not None for one in given])
        pairs = zip(ctx.saved_tensors, ctx.constants, strict=True)
        args = op.complete(tuple(constant if tensor is None else tensor for tensor, constant in pairs))
        given += [None] * (len(args) - len(given))
        tangent = _Tangent.apply(op, ctx.out_dtype, len(args), *args, *given)
        return tangent if ctx.outputs == 1 else (tangent, *[None] * (ctx.outputs - 1))

    forward.__signature__ = _AnyArguments()  # type: ignore[attr-defined]
    return _function(op.name, forward=forward, setup_context=setup_context, backward=backward, jvp=jvp)


def _function(name: str, **methods: Callable[..., Any]) -> Function:
    """The Function with these static methods, and a vmap rule that loops over the batch."""

    def apply(*args: Any) -> Any:
        return made.apply(*args)

    static = {key: staticmethod(method) for key, method in (methods | {"vmap": one_by_one(apply)}).items()}
    made: Function = type(name, (torch.autograd.Function,), static)
    return made


def _without_gradient(op: OpDefinition) -> list[tuple[int, str]]:
    """(place, name) of the tensor arguments without a gradient. A mask, being bool, cannot require one."""
    return [
        (place, argument.name)
        for place, argument in enumerate(op.arguments)
        if argument.type in ("Tensor", "Optional[Tensor]")
        and argument.name != "mask"
        and argument.name not in op.differentiable
    ]


class _AnyArguments(inspect.Signature):
    """The signature of a `forward`, whose arguments are bound as they come.

    `torch.autograd.Function.apply` binds the arguments of a forward that has a separate `setup_context` by
    `inspect.signature`, which takes longer than everything else in a small layer's call. Here arguments come by
    position, and `setup_context` fills in the defaults.
    """

    def bind(self, *args: Any, **kwargs: Any) -> Any:
        return _Bound(args)


class _Bound:
    kwargs: ClassVar[dict[str, Any]] = {}

    def __init__(self, args: tuple[Any, ...]) -> None:
        self.args = args

    def apply_defaults(self) -> None: ...


def _refusing(name: str, forward: Run, why: str) -> Function:
    """A Function whose derivative in any mode is an InputError."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        results = output if isinstance(output, tuple | list) else (output,)
        ctx.mark_non_differentiable(*[one for one in results if not one.is_floating_point()])

    def refuse(ctx: Any, *unused: Any) -> Any:
        raise InputError(f"{name} {why}")

    return _function(name, forward=forward, setup_context=setup_context, backward=refuse, jvp=refuse)


def _tangent(op: OpDefinition, dtype: torch.dtype, count: int, *args: Any) -> Tensor:
    assert op.tangent_function is not None
    return op.tangent_function(args[:count], args[count:]).to(dtype)


_Tangent: Any = _refusing("the tangent of an op", _tangent, NO_SECOND)


def _run_in_backward(ctx: Any, op: Any, args: tuple[Any, ...]) -> Any:
    """Runs another op in a backward, on the backend of its forward: autograd may use another thread."""
    if torch.compiler.is_compiling():
        return op.packet(*args)
    if backends.forced() is ctx.forced:
        return _run_here(op, args)
    with backends.scope(ctx.forced):
        return _run_here(op, args)


def _run_here(op: Any, args: tuple[Any, ...]) -> Any:
    if torch.is_grad_enabled() and any_requires_grad(*args):
        return op.function.apply(*args)
    # `is_grads_batched` uses a vmap older than torch.func's, which supports torch's own operators alone.
    if is_legacy_batched(args[0]):
        return op.formula(*op.complete(args))
    if is_plain(args):
        return op.run(*args)
    return (op.function.apply if functorch_active() else op.packet)(*args)
