"""Autograd, autocast and vmap of the ops that `ops` defines.

Each differentiable op is also an `autograd.Function` here: torch.func's transforms need one, for the autograd that
torch.library registers does not pass through them. Layers call `call`, which takes the plain op otherwise.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .backends import residuals
from .ops import LIBRARY, RUN, SCHEMAS, complete

OPS = torch.ops.sparseq
_DIFFERENTIABLE: dict[str, type[torch.autograd.Function]] = {}
_EAGER: dict[str, type[torch.autograd.Function]] = {}


def _setup_fake_quant(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, scale, *rest = inputs
    ctx.save_for_backward(x, scale)
    ctx.bits = rest[0] if rest else 8


@once_differentiable
def _fake_quant_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, scale = ctx.saved_tensors
    grad_x, grad_scale = _run("fake_quant_backward", grad, x, scale, ctx.bits)
    return grad_x, grad_scale, None


def _needs(ctx: Any, count: int) -> tuple[bool, ...]:
    """Which of the first `count` inputs want a gradient; inputs left at their defaults are not counted by autograd."""
    return (*ctx.needs_input_grad, *[False] * count)[:count]


def _of_inputs(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """The gradients in the structure that autograd wants: of the inputs that were given, a list for a list."""
    given = [[None] * len(need) if isinstance(need, list) else None for need in ctx.needs_input_grad]
    return tuple(empty or grad for empty, grad in zip(given, [*grads, *[None] * len(given)], strict=False))


def _setup_qat_linear(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, mask, weight_scale, input_scale, weight_bits, input_bits, _, regrow, tiles = complete(
        "qat_linear", inputs
    )
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    # The integers, where the forward left them, take the input's place: a quarter of its bytes.
    kept = residuals(x, weight, bias, weight_scale, input_scale, weight_bits, input_bits)
    saved = (None if kept.levels else x, weight, mask, weight_scale, input_scale, *output[1:])
    ctx.save_for_backward(*saved, *(tiles or ()))
    ctx.settings = (weight_bits, input_bits, x.dtype, regrow)
    ctx.bias_dtype = None if bias is None else bias.dtype


@once_differentiable
def _qat_linear_backward(ctx: Any, grad: Tensor | None, *unused: Any) -> tuple[Any, ...]:
    if grad is None:
        return _of_inputs(ctx, ())
    need_x, need_w, need_bias, _, need_ws, need_is = _needs(ctx, 6)
    needs = [need_x, need_w, need_bias and ctx.bias_dtype is not None, need_ws, need_is]
    saved = ctx.saved_tensors
    tiles = list(saved[9:]) or None
    grads = _run("qat_linear_backward", grad, *saved[:5], list(saved[5:9]), *ctx.settings, needs, tiles)
    grad_x, grad_w, grad_bias, grad_ws, grad_is = (g if need else None for g, need in zip(grads, needs, strict=True))
    grad_bias = None if grad_bias is None else grad_bias.to(ctx.bias_dtype)
    return _of_inputs(ctx, (grad_x, grad_w, grad_bias, None, grad_ws, grad_is))


def _setup_masked_linear(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, mask, bias, regrow, tiles = complete("masked_linear", inputs)
    ctx.save_for_backward(x, weight, mask, *(tiles or ()))
    ctx.regrow = regrow
    ctx.has_bias = bias is not None


@once_differentiable
def _masked_linear_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    need_x, need_w, _, need_bias = _needs(ctx, 4)
    needs = [need_x, need_w, need_bias and ctx.has_bias]
    saved = ctx.saved_tensors
    grads = _run("masked_linear_backward", grad, *saved[:3], ctx.regrow, needs, list(saved[3:]) or None)
    grad_x, grad_w, grad_bias = (g if need else None for g, need in zip(grads, needs, strict=True))
    return _of_inputs(ctx, (grad_x, grad_w, None, grad_bias))


def _one_by_one(run: Callable[..., Any]) -> Callable[..., Any]:
    """A vmap rule that runs `run` on each element of the batch: right for every op, and no op here is worth more."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        results = [run(*_element(args, in_dims, i)) for i in range(info.batch_size)]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        columns = [torch.stack(column) for column in zip(*results, strict=True)]
        return type(results[0])(columns), type(results[0])(0 for _ in columns)

    return rule


def _element(args: Any, in_dims: Any, index: int) -> list[Any]:
    picked: list[Any] = []
    for arg, dim in zip(args, in_dims, strict=True):
        if isinstance(dim, list | tuple):
            picked.append(_element(arg, dim, index))
        else:
            picked.append(arg if dim is None else arg.select(dim, index))
    return picked


def _register(op: str, setup: Callable[..., None], backward: Callable[..., Any]) -> None:
    torch.library.register_autograd(f"sparseq::{op}", backward, setup_context=setup, lib=LIBRARY)

    methods = {
        "forward": staticmethod(getattr(OPS, op)),
        "setup_context": staticmethod(setup),
        "backward": staticmethod(backward),
        "vmap": staticmethod(_one_by_one(lambda *args: _DIFFERENTIABLE[op].apply(*args))),
    }
    _DIFFERENTIABLE[op] = type(op, (torch.autograd.Function,), methods)

    def forward(ctx: Any, *args: Any) -> Any:
        output = RUN[op](*args)
        setup(ctx, args, output)
        return output

    # A `setup_context` of its own, which transforms need, takes torch longer to call than all else here.
    eager = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    _EAGER[op] = type(op, (torch.autograd.Function,), eager)


def call(op: str, *args: Any) -> Tensor:
    """The (first) result of an op, every argument by position.

    As `torch.ops.sparseq`, but torch.func's transforms pass through, too; and where nothing is traced or transformed,
    the op runs without torch's dispatcher, which on the host takes longer than launching a kernel.
    """
    if torch.compiler.is_compiling() or not plain(args):
        transformed = torch._C._are_functorch_transforms_active() and not torch.compiler.is_compiling()
        result = (_DIFFERENTIABLE[op].apply if transformed and op in _DIFFERENTIABLE else getattr(OPS, op))(*args)
    elif torch.is_autocast_enabled(args[0].device.type):
        result = _AUTOCAST[op, args[0].device.type](*args) if (op, args[0].device.type) in _AUTOCAST else RUN[op](*args)
    elif not (torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args)):
        result = RUN[op](*args)
    else:
        result = _EAGER[op].apply(*args) if op in _EAGER else getattr(OPS, op)(*args)
    return result if isinstance(result, Tensor) else result[0]


def _run(op: str, *args: Any) -> Any:
    """An op within another's backward, which autocast does not reach: the gradients' dtypes are the op's to decide."""
    device = args[0].device.type
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return _run(op, *args)
    return RUN[op](*args) if not torch.compiler.is_compiling() and plain(args) else getattr(OPS, op)(*args)


_PLAIN_TENSORS = (Tensor, torch.nn.Parameter)


def plain(args: tuple[Any, ...]) -> bool:
    """Whether all tensors hold values and nothing looks on: no subclasses, modes, traces, or transforms."""
    for arg in args:
        if isinstance(arg, Tensor) and (type(arg) not in _PLAIN_TENSORS or not (arg.is_cpu or arg.is_cuda)):
            return False
    return nothing_looks_on()


# Every call of a layer asks these, and to look them up takes as long as to call them.
_dispatch_modes = torch._C._len_torch_dispatch_stack
_tracing_state = torch._C._get_tracing_state
_functorch_transforms = torch._C._are_functorch_transforms_active


def nothing_looks_on() -> bool:
    """Whether what runs is neither traced, nor transformed, nor seen by a dispatch mode."""
    return _dispatch_modes() == 0 and _tracing_state() is None and not _functorch_transforms()


Autocast = Callable[..., Any]


def _autocast_output(op: str, device: str, run: Callable[..., Any]) -> Autocast:
    """Quantizes from the input as it comes: only what leaves the op has autocast's precision."""
    position = [argument.name for argument in getattr(OPS, op).default._schema.arguments].index("out_dtype")

    def cast(*args: Any) -> Any:
        settings = list(complete(op, args))
        if settings[position] is None:
            settings[position] = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return run(*settings)

    return cast


def _autocast_masked_linear(op: str, device: str, run: Callable[..., Any]) -> Autocast:
    """The weight stays as it is: the op itself rounds it, with its mask, and its gradient is not rounded."""

    def cast(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None = None, *rest: Any) -> Tensor:
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            y: Tensor = run(x.to(dtype), weight, mask, None if bias is None else bias.to(dtype), *rest)
            return y

    return cast


_INT8_LINEARS = ("int8_linear", "block_sparse_int8_linear", "bitmask_int8_linear", "semi_structured_int8_linear")
_CASTS = dict.fromkeys(("qat_linear", *_INT8_LINEARS), _autocast_output) | {"masked_linear": _autocast_masked_linear}
# (op, device) -> `call` of it under autocast.
_AUTOCAST: dict[tuple[str, str], Autocast] = {}

_register("fake_quant", _setup_fake_quant, _fake_quant_backward)
_register("qat_linear", _setup_qat_linear, _qat_linear_backward)
_register("masked_linear", _setup_masked_linear, _masked_linear_backward)
for _op in SCHEMAS:
    torch.library.register_vmap(f"sparseq::{_op}", _one_by_one(getattr(OPS, _op)), lib=LIBRARY)
for _device, _key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
    for _op, _cast in _CASTS.items():
        LIBRARY.impl(_op, _cast(_op, _device, getattr(OPS, _op)), _key)
        _AUTOCAST[_op, _device] = _cast(_op, _device, functools.partial(call, _op))
