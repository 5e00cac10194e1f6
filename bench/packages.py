"""The library that is benchmarked, as a value: this tree's packages, or those of another commit beside them."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

import sparseq
import sparseq_kernels

Call = Callable[[], Any]
# Before the ops had functions of their own, `call` ran them by name. It returned the first result alone.
SEVERAL_RESULTS = ("quantize_rows", "layer_norm_quantize_rows", "gelu_quantize_rows", "magnitude_mask")


@dataclass(frozen=True)
class Packages:
    """kernels: `sparseq_kernels`, or the copy of it. layers: `sparseq`, or the copy of it.
    revision: the commit they are of; None for this tree."""

    kernels: ModuleType
    layers: ModuleType
    revision: str | None = None

    @property
    def namespace(self) -> str:
        """The name in `torch.ops` of this copy's ops."""
        return self.layers.__name__

    def owns(self, module: str) -> bool:
        """Whether a module of that name is one of this copy's."""
        return module.partition(".")[0] in (self.kernels.__name__, self.layers.__name__)

    def function(self, op: str) -> Callable[..., Any]:
        """The fastest public way to call an op, with every argument of its schema by position."""
        typed = getattr(self.kernels, op, None)
        if typed is not None:
            return _by_position(typed, [argument.name for argument in self._arguments(op)])
        if op in SEVERAL_RESULTS or not hasattr(self.kernels, "call"):
            found: Callable[..., Any] = getattr(getattr(torch.ops, self.namespace), op)
            return found
        return functools.partial(self.kernels.call, op)

    def complete(self, op: str, given: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments with the schema's defaults for those that are not given."""
        return (*given, *(argument.default_value for argument in self._arguments(op)[len(given) :]))

    def bind(self, op: str, *given: Any) -> Call:
        """A call of the op with these arguments, and defaults for the rest."""
        return functools.partial(self.function(op), *self.complete(op, given))

    def _arguments(self, op: str) -> Sequence[Any]:
        overload = getattr(getattr(torch.ops, self.namespace), op).default
        arguments: Sequence[Any] = overload._schema.arguments
        return arguments


def _by_position(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """`function` with the arguments in the order of `names`, also where it takes some by keyword alone."""
    parameters = inspect.signature(function).parameters
    positional = [name for name, one in parameters.items() if one.kind is not one.KEYWORD_ONLY]
    if positional[: len(names)] == list(names):
        return function
    known = [name for name in names if name in parameters]

    def run(*given: Any) -> Any:
        return function(**{name: value for name, value in zip(names, given, strict=True) if name in known})

    return run


CURRENT = Packages(sparseq_kernels, sparseq)
Libraries = Mapping[str, Packages]


def reference(op: str, *given: Any) -> Any:
    """What the reference implementation of this tree returns."""
    with sparseq_kernels.use_backend("reference"):
        return getattr(torch.ops.sparseq, op)(*given)
