"""The registered formats by name, and what can be asked of any of them."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import InputError
from ..untrusted import fields, one_of
from .protocol import TensorSpec, WeightFormat, check_shape, values_dtype

_FORMATS: dict[str, type[WeightFormat]] = {}
_COMMON = ("format", "shape", "bits")
Registered = TypeVar("Registered", bound=type[WeightFormat])


def register(cls: Registered) -> Registered:
    """Decorator of a `WeightFormat`: makes it known by its name. Of formats that store a weight in equally few bytes,
    `smallest` takes the one that was registered first."""
    if cls.name in _FORMATS:
        raise InputError(f"there is a format {cls.name!r} already")
    _FORMATS[cls.name] = cls
    return cls


def unregister(name: str) -> None:
    """Takes a format out of the registry again. InputError if there is none of this name."""
    del _FORMATS[format_named(name).name]


def format_names() -> tuple[str, ...]:
    """The names of all formats."""
    return tuple(_FORMATS)


def format_named(name: str) -> type[WeightFormat]:
    """The format's class. InputError for an unknown name."""
    if name not in _FORMATS:
        raise InputError(f"format {name!r} is not one of {', '.join(_FORMATS)}")
    return _FORMATS[name]


def check_layout(layout: object, where: str) -> None:
    """Raises InputError unless `layout`, as read from a file, describes a weight that its format can hold.

    Exact keys and types; numbers in range; no more kept than there is. Allocates nothing. `where` begins the message.
    """
    if not isinstance(layout, dict) or "format" not in layout:
        fields(layout, _COMMON, where)
    cls = _FORMATS[one_of(layout["format"], format_names(), f"{where}: format")]  # type: ignore[index]
    found = fields(layout, (*_COMMON, *cls.layout_fields), where)
    one_of(found["bits"], cls.held_bits, f"{where}: bits of a {cls.name} weight")
    cls.check_layout(found, check_shape(found["shape"], f"{where}: shape"), where)


def tensor_specs(layout: dict[str, Any], float_dtype: torch.dtype) -> dict[str, TensorSpec]:
    """Every tensor that a weight of this layout has, by name. float_dtype: of the values, if they are not quantized.

    The layout must have passed `check_layout`.
    """
    return _FORMATS[layout["format"]].tensor_specs(layout, values_dtype(layout["bits"], float_dtype))


def weight_of(layout: dict[str, Any], tensors: Mapping[str, Tensor]) -> WeightFormat:
    """The weight that `layout` describes, around its `tensors`. The layout must have passed `check_layout`."""
    return _FORMATS[layout["format"]].from_tensors(layout, tensors)


def empty_weight(layout: dict[str, Any], float_dtype: torch.dtype) -> WeightFormat:
    """The weight that `layout` describes, on the default device, with its tensors' contents still to be loaded.

    float_dtype: of the values, if they are not quantized. The layout must have passed `check_layout`.
    """
    # The default device decides where a module that is made belongs.
    device = torch.get_default_device()
    specs = tensor_specs(layout, float_dtype)
    return weight_of(layout, {n: torch.zeros(spec.shape, dtype=spec.dtype, device=device) for n, spec in specs.items()})


def smallest(values: Tensor, mask: Tensor | None, block: tuple[int, int], bits: int) -> WeightFormat:
    """The weight in the format that stores it in the fewest bytes; arguments as of `WeightFormat.from_dense`."""
    shape = (values.shape[0], values.shape[1])
    candidates = [
        cls.from_dense(values, bits, mask, block)
        for cls in _FORMATS.values()
        if not (mask is None and cls.is_sparse) and cls.why_not(bits, mask, shape, block) is None
    ]
    return min(candidates, key=stored_bytes)


def stored_bytes(weight: WeightFormat) -> int:
    """Bytes of the weight's stored tensors."""
    return sum(t.numel() * t.element_size() for t in weight.tensors().values())
