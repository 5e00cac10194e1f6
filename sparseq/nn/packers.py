"""From the class of a training layer to the function that packs it.

`pack.py` registers the functions. Training layers (`layer.pack()`) and packed layers do not import each other: both ask
here.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import Tensor, nn

from sparseq_kernels import InputError
from sparseq_kernels.formats import WeightFormat

# A weight as it is stored, and its scale fp32 [rows]; None for floats.
Stored = tuple[WeightFormat, Tensor | None]


class Packer(Protocol):
    """Makes the packed layer of a training layer. stored, bias: its weight and bias where they were packed already, for
    a layer that this one is tied to."""

    def __call__(
        self, layer: nn.Module, format: str | None = None, stored: Stored | None = None, bias: Tensor | None = None
    ) -> nn.Module: ...


Function = TypeVar("Function", bound=Callable[..., nn.Module])
_PACKERS: dict[type[nn.Module], Packer] = {}


def packs(kind: type[nn.Module]) -> Callable[[Function], Function]:
    """Decorator of a `Packer` of layers of the class `kind` and its subclasses."""

    def register(function: Function) -> Function:
        _PACKERS[kind] = function
        return function

    return register


def packer_of(layer: nn.Module) -> Packer | None:
    """The function that packs layers of this one's class; None where there is none."""
    return next((_PACKERS[cls] for cls in type(layer).__mro__ if cls in _PACKERS), None)


def pack_layer(layer: nn.Module, format: str | None = None) -> nn.Module:
    """The packed layer, in `format` or in the smallest. InputError for a layer that has no packed form."""
    packer = packer_of(layer)
    if packer is None:
        raise InputError(f"a {type(layer).__name__} has no packed form")
    return packer(layer, format)
