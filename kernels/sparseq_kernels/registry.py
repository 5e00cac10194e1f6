"""The registry: what each op is (`OpDefinition`), and which functions implement it (`implementation`)."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from .torch_internals import parse_schema

F = TypeVar("F", bound=Callable[..., Any])
NAMESPACE = "sparseq"


class Argument(NamedTuple):
    """An argument of a schema.

    type: as in torch's schemas ("Tensor", "Optional[Tensor]", "List[bool]"). default: None if there is none.
    """

    name: str
    type: str
    default: Any


class OpDefinition:
    """One op: its schema, its formula, and what torch must know of it. An op's file fills one in by decorators.

    formula: the reference implementation, which defines the op's results.
    differentiable: the tensor arguments that have a gradient; asking for any other argument's gradient raises.
    no_gradient: for an op without any gradient, why arguments that require one are refused. An op with neither
        returns constants, as torch.argmax does.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        formula: Callable[..., Any],
        differentiable: Sequence[str] = (),
        no_gradient: str | None = None,
    ) -> None:
        self.name, self.schema, self.formula = name, schema, formula
        self.arguments = tuple(Argument(*found) for found in parse_schema(f"{NAMESPACE}::{name}{schema}"))
        self.names = tuple(argument.name for argument in self.arguments)
        self.defaults = tuple(argument.default for argument in self.arguments)
        self.differentiable, self.no_gradient = tuple(differentiable), no_gradient
        # Each is set by the decorator of its name.
        self.fake_function: Callable[..., Any] | None = None
        self.validation: Callable[..., None] | None = None
        self.value_validation: Callable[..., None] | None = None
        self.setup_context_function: Callable[..., None] | None = None
        self.backward_function: Callable[..., Sequence[Tensor | None]] | None = None
        self.tangent_function: Callable[..., Tensor] | None = None
        self.flop_formula: Callable[..., int] | None = None
        self.autocast_function: Callable[..., Any] | None = None
        if name in OPS:
            raise ValueError(f"the op {name!r} is defined twice")
        OPS[name] = self

    def __str__(self) -> str:
        return self.name

    def complete(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments with the defaults of those that are left out at the end."""
        return args + self.defaults[len(args) :]

    def fake(self, function: F) -> F:
        """function(*args): empty tensors with the shapes and dtypes of the op's results, for tracing."""
        self.fake_function = function
        return function

    def validate(self, function: F) -> F:
        """function(op name, *args): raises InputError for wrong dtypes, shapes or numbers. Reads no values, since it
        runs on fake tensors, too."""
        self.validation = function
        return function

    def validate_values(self, function: F) -> F:
        """function(op name, *args): raises InputError for wrong values of index tensors. Runs for CPU tensors only: on
        a GPU it would wait for the device on every call."""
        self.value_validation = function
        return function

    def setup_context(self, function: F) -> F:
        """function(ctx, args, output): saves what `backward` needs, as for `torch.autograd.Function`."""
        self.setup_context_function = function
        return function

    def backward(self, function: F) -> F:
        """function(ctx, run, grad): the gradients of the first arguments. run(op, *args) runs another op."""
        self.backward_function = function
        return function

    def tangent(self, function: F) -> F:
        """function(args, tangents): the forward-mode derivative of the first result. A tangent may be None."""
        self.tangent_function = function
        return function

    def flops(self, function: F) -> F:
        """function(*shapes): what `torch.utils.flop_counter.FlopCounterMode` counts."""
        self.flop_formula = function
        return function

    def autocast(self, function: F) -> F:
        """function(op, args, dtype): the arguments that the op gets under autocast to `dtype`."""
        self.autocast_function = function
        return function


OPS: dict[str, OpDefinition] = {}
"""Every op that was defined, by name."""


@dataclass(frozen=True)
class Implementation:
    """A backend's function for an op. saves: what `qat_linear` saves for its backward (see `ops.qat_linear`)."""

    run: Callable[..., Any]
    saves: str = "nothing"


@dataclass(frozen=True)
class Backend:
    """A way to run ops on a type of device.

    package: the name of the package whose modules implement it. They are imported when the backend is first used.
    why_not: function(device type): why the backend cannot run on tensors there; None if it can.
    preferred_on: the types of device on which it is chosen if it can run.
    otherwise: (name, description) of the backend that runs there if it cannot; the description is for the warning.
    based_on: the backend whose implementation runs for an op that this one has none for; the reference if None.
    runs_fp64: whether it takes fp64 tensors. Where it does not, the reference runs.
    details: function(): what else is to be said of how it runs, such as its instruction set.
    """

    name: str
    package: str
    why_not: Callable[[str], str | None]
    preferred_on: tuple[str, ...] = ()
    otherwise: tuple[str, str] = ("reference", "its reference implementation")
    based_on: str | None = None
    runs_fp64: bool = True
    details: Callable[[], str] | None = None


_implementations: dict[tuple[str, str], Implementation] = {}
_shortcuts: dict[tuple[str, str], Callable[..., Any]] = {}


def implementation(op: str, backend: str, *, saves: str = "nothing", **settings: Any) -> Callable[[F], F]:
    """Registers the decorated function as `backend`'s implementation of `op`. It gets every argument by position.

    settings: keyword arguments that it gets besides.
    """

    def register(function: F) -> F:
        if (backend, op) in _implementations:
            raise ValueError(f"{op!r} has an implementation for {backend!r} already")
        run = functools.partial(function, **settings) if settings else function
        _implementations[backend, op] = Implementation(run, saves)
        return function

    return register


def shortcut(op: str, backend: str) -> Callable[[F], F]:
    """Registers a function for the common case of inference, which is tried before anything else.

    function(run, *args) gets the op's arguments by position, complete and not validated. Nothing observes the call, and
    no gradient is wanted. It checks what it relies on, and returns None for a call that must take the usual way.
    run(*args) is that way: validation, and the backend's implementation.
    """

    def register(function: F) -> F:
        _shortcuts[backend, op] = function
        return function

    return register


def find_implementation(backend: str, op: str) -> Implementation | None:
    """The backend's implementation of an op, if it has one and its modules were imported."""
    return _implementations.get((backend, op))


def find_shortcut(backend: str, op: str) -> Callable[..., Any] | None:
    """The backend's shortcut for an op, if it has one and its modules were imported."""
    return _shortcuts.get((backend, op))


def registered() -> list[tuple[str, str]]:
    """(backend, op) of every implementation that was registered."""
    return list(_implementations)


def implemented(backend: str) -> set[str]:
    """The ops that the backend's imported modules implement."""
    return {op for name, op in _implementations if name == backend}
