"""How layers call the ops: past torch's dispatcher where nothing needs it. Autocast and vmap of the ops, too."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from .checks import check_classes
from .flops import register as register_flops
from .gradients import EAGER, FUNCTIONS, OPS
from .looks import nothing_looks_on, plain
from .ops import LIBRARY, RUN
from .schemas import SCHEMAS, complete, names
from .vmaps import one_by_one

__all__ = ["call", "nothing_looks_on", "plain"]


def call(op: str, *args: Any) -> Tensor:
    """The (first) result of an op, every argument by position.

    As `torch.ops.sparseq`, but torch.func's transforms pass through, too; and where nothing is traced or transformed,
    the op runs without torch's dispatcher, which on the host takes longer than launching a kernel. torch.fx records a
    call of this function.
    """
    if torch.compiler.is_compiling() or not plain(args) or not isinstance(args[0], Tensor):
        result = _dispatched(op, args)
    elif torch.is_autocast_enabled(args[0].device.type):
        result = _AUTOCAST[op, args[0].device.type](*args) if (op, args[0].device.type) in _AUTOCAST else RUN[op](*args)
    elif not (torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args)):
        result = RUN[op](*args)
    else:
        result = EAGER[op].apply(*args) if op in EAGER else getattr(OPS, op)(*args)
    return result if isinstance(result, Tensor) else result[0]


def _dispatched(op: str, args: tuple[Any, ...]) -> Any:
    if torch.compiler.is_compiling():
        return getattr(OPS, op)(*args)
    for arg in args:
        if isinstance(arg, fx.Proxy):
            # As `torch.fx.wrap` would have it, in whichever module's name the call is written.
            return [arg.tracer.create_proxy("call_function", call, (op, *args), {})]
    check_classes(op, complete(op, args))
    transformed = torch._C._are_functorch_transforms_active()
    if transformed and torch.is_autocast_enabled(args[0].device.type) and (op, args[0].device.type) in _AUTOCAST:
        return _AUTOCAST[op, args[0].device.type](*args)
    return (FUNCTIONS[op].apply if transformed and op in FUNCTIONS else getattr(OPS, op))(*args)


Autocast = Callable[..., Any]


def _autocast_output(op: str, device: str, run: Callable[..., Any]) -> Autocast:
    """Quantizes from the input as it comes: only what leaves the op has autocast's precision."""
    position = names(op).index("out_dtype")

    def cast(*args: Any) -> Any:
        settings = list(complete(op, args))
        # An fp64 input keeps its dtype, as in torch's own linear layers.
        if settings[position] is None and args[0].dtype != torch.float64:
            settings[position] = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return run(*settings)

    return cast


def _autocast_masked_linear(op: str, device: str, run: Callable[..., Any]) -> Autocast:
    """The weight stays as it is: the op itself rounds it, with its mask, and its gradient is not rounded."""

    def cast(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None = None, *rest: Any) -> Tensor:
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            if x.is_floating_point() and x.dtype != torch.float64:
                x, bias = x.to(dtype), bias.to(dtype) if isinstance(bias, Tensor) else bias
            y: Tensor = run(x, weight, mask, bias, *rest)
            return y

    return cast


_INT8_LINEARS = ("int8_linear", "block_sparse_int8_linear", "bitmask_int8_linear", "semi_structured_int8_linear")
_CASTS = dict.fromkeys(("qat_linear", *_INT8_LINEARS), _autocast_output) | {"masked_linear": _autocast_masked_linear}
# (op, device) -> `call` of it under autocast.
_AUTOCAST: dict[tuple[str, str], Autocast] = {}


for _op in SCHEMAS:
    torch.library.register_vmap(f"sparseq::{_op}", one_by_one(getattr(OPS, _op)), lib=LIBRARY)
for _device, _key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
    for _op, _cast in _CASTS.items():
        LIBRARY.impl(_op, _cast(_op, _device, getattr(OPS, _op)), _key)
        _AUTOCAST[_op, _device] = _cast(_op, _device, functools.partial(call, _op))
register_flops()
