"""How a call of an op gets to the function that runs it.

A call takes the first way that applies:

1. In inference, on plain tensors: the backend's shortcut (`registry.shortcut`), if it takes the call.
2. On plain tensors: validation and the backend's implementation, through autograd if a gradient is wanted. Torch's
   dispatcher takes longer on the host than launching a kernel, and is left out.
3. Otherwise (torch.compile, torch.export, torch.func, fake tensors, subclasses): torch's dispatcher, as for
   `torch.ops.sparseq.<op>`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.compiler import is_compiling, is_dynamo_compiling

from . import backends
from .autograd import NO_SECOND, make_function
from .errors import InputError
from .flops import register_flops
from .registry import NAMESPACE, OPS, F, OpDefinition
from .torch_internals import (
    any_autocast,
    any_requires_grad,
    functorch_active,
    is_differentiated,
    is_observed,
    is_plain,
    is_zerotensor,
    own_memory,
    redispatch_below_autograd,
)
from .validation import check_classes, type_check
from .vmap import one_by_one

LIBRARY = torch.library.Library(NAMESPACE, "DEF")

_grad_enabled = torch.is_grad_enabled
_missing: Any = object()


class Op(OpDefinition):
    """An op that can be called, and that is registered as `torch.ops.sparseq.<name>`.

    An op's file binds it to the name `OP`, or `BACKWARD` for the op of a backward. It can be run in these ways:

    - `op(*args)`: what typed functions call; see the module's docstring.
    - `op.run(*args)`: validation and the implementation, without autograd and autocast.
    - `op.function.apply(*args)`: with autograd, whether or not the dispatcher is involved.
    - `op.packet(*args)`: `torch.ops.sparseq.<name>`, through torch's dispatcher.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        formula: Callable[..., Any],
        differentiable: Sequence[str] = (),
        no_gradient: str | None = None,
    ) -> None:
        is_backward = name.endswith("_backward")
        super().__init__(name, schema, formula, differentiable, NO_SECOND if is_backward else no_gradient)
        # By these torch.fx writes a recorded call of the op into generated code.
        self.__name__ = "BACKWARD" if is_backward else "OP"
        self.__module__ = f"{__package__}.ops.{name.removesuffix('_backward')}"
        self._check_types = type_check(self)
        self._shortcuts: dict[tuple[str | None, bool], Callable[..., Any] | None] = {}
        LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        self.packet = getattr(getattr(torch.ops, NAMESPACE), name)
        self.function = make_function(self, self.packet, self.run)
        for key in ("CPU", "CUDA"):
            LIBRARY.impl(name, self.run, key)
        LIBRARY.impl(name, self._run_elsewhere, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{name}", self._run_fake, lib=LIBRARY)
        torch.library.register_vmap(f"{NAMESPACE}::{name}", one_by_one(self.packet), lib=LIBRARY)
        if self.differentiable or self.no_gradient is not None:
            LIBRARY.impl(name, self._run_autograd, "Autograd", with_keyset=True)
        else:
            LIBRARY.impl(name, torch.library.fallthrough_kernel, "Autograd")

    def __call__(self, *args: Any) -> Any:
        """The results of the op. Arguments are given by position; defaults may be left out."""
        if is_dynamo_compiling():
            return self.packet(*args)
        x = args[0] if args else None
        if x.__class__ is Tensor and len(args) <= len(self.names):
            forced = backends.in_context.get()
            if forced is backends.UNSET:
                forced = backends.for_process
            shortcut = self._shortcuts.get((forced, x.is_cpu), _missing)
            if shortcut is _missing:
                shortcut = self._find_shortcut(forced, x)
            if shortcut is not None and not (
                any_autocast()
                or is_observed()
                or x.is_neg()
                or is_zerotensor(x)
                or (_grad_enabled() and any_requires_grad(*args))
            ):
                result = shortcut(self.run, *(args if len(args) == len(self.names) else self.complete(args)))
                if result is not None:
                    return result
        return self._call(args)

    def __reduce__(self) -> tuple[Any, ...]:
        return _named, (self.name,)

    def forget_shortcuts(self) -> None:
        """For tests and tools that replace what `backends` chooses. `set_backend` does not need it: what is forced is
        part of the key."""
        self._shortcuts.clear()

    def _find_shortcut(self, forced: str | None, x: Tensor) -> Callable[..., Any] | None:
        if not (x.is_cpu or x.is_cuda):
            return None
        found = backends.shortcut(self, x.device.type, forced)
        self._shortcuts[forced, x.is_cpu] = found
        return found

    def _call(self, args: tuple[Any, ...]) -> Any:
        """The call without a shortcut."""
        if is_compiling():
            return self.packet(*args)
        if not (args and isinstance(args[0], Tensor) and is_plain(args)):
            return self._call_dispatcher(args)
        device = args[0].device.type
        if self.autocast_function is not None and torch.is_autocast_enabled(device):
            return self._run_autocast(device, self, args)
        if not (torch.is_grad_enabled() and any_requires_grad(*args)):
            return self.run(*args)
        return (self.function.apply if self.differentiable else self.packet)(*args)

    def _call_dispatcher(self, args: tuple[Any, ...]) -> Any:
        for arg in args:
            if isinstance(arg, fx.Proxy):
                return arg.tracer.create_proxy("call_function", self, args, {})
        args = self.complete(args)
        check_classes(self, args)
        if not functorch_active():
            return self.packet(*args)
        device = args[0].device.type
        if self.autocast_function is not None and torch.is_autocast_enabled(device):
            return self._run_autocast(device, self, args)
        has_function = self.differentiable or self.no_gradient is not None
        return (self.function.apply if has_function else self.packet)(*args)

    def check(self, args: tuple[Any, ...]) -> None:
        """Raises InputError for arguments, complete, of which types, devices, shapes, dtypes or numbers are wrong."""
        self._check_types(args)
        if self.validation is not None:
            self.validation(self.name, *args)

    def run(self, *args: Any) -> Any:
        """The results, below autograd and autocast, on tensors that hold values."""
        args = self.complete(args)
        self.check(args)
        device = device_of(args)
        if self.value_validation is not None and device == "cpu":
            self.value_validation(self.name, *args)
        function = backends.implementation(self, device)
        # Autocast would change the precision of torch's products within an implementation.
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                results = function(*args)
        else:
            results = function(*args)
        if isinstance(results, Tensor):
            return own_memory(results)
        return _distinct(type(results)([own_memory(result) for result in results]))

    def _run_elsewhere(self, *args: Any) -> Any:
        """For devices other than CPU and CUDA, and for lists without a tensor."""
        if args[0] == []:
            return self.run(*args)
        self.check(self.complete(args))
        raise InputError(f"{self.name} runs on dense CPU or CUDA tensors: convert the arguments to such")

    def _run_fake(self, *args: Any, **named: Any) -> Any:
        assert self.fake_function is not None
        args = self.complete(args)
        if named:
            args = tuple(named.get(name, arg) for name, arg in zip(self.names, args, strict=True))
        self.check(args)
        return self.fake_function(*args)

    def _run_autograd(self, keyset: Any, *args: Any) -> Any:
        """What torch's dispatcher calls for autograd."""
        if is_differentiated(args):
            if self.no_gradient is not None and self.__name__ == "OP":
                raise InputError(f"{self.name} {self.no_gradient}")
            if functorch_active():
                # This kernel is called for one transform at a time, and cannot pass the derivative on to the others.
                raise InputError(
                    f"torch.func's transforms do not differentiate torch.ops.{NAMESPACE}.{self.name}: use the layers "
                    f"of sparseq.nn, or sparseq_kernels.{self.name}"
                )
            return self.function.apply(*args)
        if is_plain(args):  # Nothing below autograd in the dispatcher is needed.
            return self.run(*args)
        return redispatch_below_autograd(self.packet.default, keyset, args)

    def autocast(self, function: F) -> F:
        """As in `OpDefinition`; registers it with torch's dispatcher, too."""
        for device, key in (("cpu", "AutocastCPU"), ("cuda", "AutocastCUDA")):
            LIBRARY.impl(self.name, self._autocast_kernel(device), key)
        return super().autocast(function)

    def _autocast_kernel(self, device: str) -> Callable[..., Any]:
        return lambda *args: self._run_autocast(device, self.packet, args)

    def _run_autocast(self, device: str, run: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Calls `run` with the arguments that the op gets under autocast, outside autocast."""
        assert self.autocast_function is not None
        args = self.autocast_function(self, self.complete(args), torch.get_autocast_dtype(device))
        with torch.autocast(device, enabled=False):
            return run(*args)

    def flops(self, function: F) -> F:
        """As in `OpDefinition`; registers it with torch's counter, too."""
        register_flops(self.packet, function)
        return super().flops(function)


def _named(name: str) -> OpDefinition:
    """The op of that name: a copied or unpickled op is the op itself."""
    return OPS[name]


def device_of(args: tuple[Any, ...]) -> str:
    """The type of the device of an op's arguments; "cpu" for an empty list of tensors."""
    first = args[0]
    if isinstance(first, list | tuple):
        if not first:
            return "cpu"
        first = first[0]
    device: str = first.device.type
    return device


def _distinct(results: Any) -> Any:
    """The results; a tensor that is there twice is replaced by a new empty one the second time."""
    if len({*map(id, results)}) == len(results):
        return results
    seen: set[int] = set()
    kept = []
    for result in results:
        kept.append(torch.empty_like(result) if id(result) in seen else result)
        seen.add(id(result))
    return type(results)(kept)


def output_autocast(op: OpDefinition, args: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """Autocast of an op that quantizes its input as it comes: only its output has autocast's dtype.

    An fp64 input keeps its dtype, as in torch's own linear layers.
    """
    place = op.names.index("out_dtype")
    if args[place] is not None or args[0].dtype == torch.float64:
        return args
    return (*args[:place], dtype, *args[place + 1 :])
