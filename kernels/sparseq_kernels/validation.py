"""Validation of an op's arguments: their types, devices, dtypes and shapes.

Every op validates its arguments on every call, before any backend gets them: native code and kernels rely on it. So
valid arguments take little time, and the work goes into the messages for invalid ones.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from .errors import InputError, InputTypeError
from .registry import OpDefinition
from .torch_internals import PLAIN_CLASSES

FLOATS = frozenset((torch.float32, torch.float16, torch.bfloat16, torch.float64))
_FLOATS_TEXT = "float32, float16, bfloat16 or float64"
LEAST_BITS, MOST_BITS = 2, 16
_NONE = type(None)
_PLAIN = frozenset((_NONE, int, float, bool, str, torch.dtype))
# By the type in the schema: what an argument's class is as a rule, and what else is as good.
_CLASSES: dict[str, tuple[frozenset[type], tuple[type, ...], str]] = {
    "Tensor": (frozenset(PLAIN_CLASSES), (Tensor,), "a tensor"),
    "Optional[Tensor]": (frozenset((*PLAIN_CLASSES, _NONE)), (Tensor,), "a tensor or None"),
    "List[Tensor]": (frozenset(), (list, tuple), "a list of tensors"),
    "Optional[List[Tensor]]": (frozenset((_NONE,)), (list, tuple), "a list of tensors or None"),
    "List[bool]": (frozenset(), (list, tuple), "a list of bools"),
    "int": (frozenset((int,)), (int, torch.SymInt), "an integer"),
    "float": (frozenset((float, int)), (float, int, torch.SymFloat, torch.SymInt), "a number"),
    "bool": (frozenset((bool,)), (torch.SymBool,), "a bool"),
    "str": (frozenset((str,)), (str,), "a string"),
    "ScalarType": (frozenset((torch.dtype,)), (), "a dtype"),
    "Optional[ScalarType]": (frozenset((torch.dtype, _NONE)), (), "a dtype or None"),
}


def type_check(op: OpDefinition) -> Callable[[tuple[Any, ...]], None]:
    """A function that raises InputError unless the arguments have the types of the op's schema, and all tensors are
    strided and on one device."""
    expected = tuple(_CLASSES[argument.type][0] for argument in op.arguments)

    def check(args: tuple[Any, ...]) -> None:
        if len(args) != len(expected):
            _wrong_count(op, args)
        device = None
        for place, (arg, classes) in enumerate(zip(args, expected, strict=True)):
            found = arg.__class__
            if found not in classes:
                _check_class(op, place, arg)
            elif found in _PLAIN:
                continue
            if isinstance(arg, Tensor):
                if device is None:
                    device = arg.device
                elif arg.device != device:
                    _devices_differ(op, args)
                if arg.layout is not torch.strided:
                    _not_strided(op, place, arg)
            elif found is list or found is tuple:
                for one in arg:
                    if isinstance(one, Tensor):
                        device = one.device if device is None else device
                        if one.device != device:
                            _devices_differ(op, args)
                        if one.layout is not torch.strided:
                            _not_strided(op, place, one)

    return check


def check_classes(op: OpDefinition, args: tuple[Any, ...]) -> None:
    """Raises InputTypeError unless the arguments have the types of the op's schema."""
    if len(args) != len(op.arguments):
        _wrong_count(op, args)
    for place, (arg, argument) in enumerate(zip(args, op.arguments, strict=True)):
        if arg.__class__ not in _CLASSES[argument.type][0]:
            _check_class(op, place, arg)


def _wrong_count(op: OpDefinition, args: tuple[Any, ...]) -> NoReturn:
    raise InputTypeError(f"{op.name} takes {len(op.names)} arguments, not {len(args)}: {', '.join(op.names)}")


def _check_class(op: OpDefinition, place: int, arg: Any) -> None:
    argument = op.arguments[place]
    _, others, text = _CLASSES[argument.type]
    if not isinstance(arg, others) or (isinstance(arg, bool) and argument.type in ("int", "float")):
        raise InputTypeError(f"{op.name}: {argument.name} must be {text}, not {_described(arg)}")
    if isinstance(arg, list | tuple):
        wanted, one = (Tensor, "tensors") if "Tensor" in argument.type else ((bool, torch.SymBool), "bools")
        for entry in arg:
            if not isinstance(entry, wanted):
                raise InputTypeError(f"{op.name}: {argument.name} must hold {one} only, not {_described(entry)}")


def _described(arg: Any) -> str:
    return "None" if arg is None else f"a {type(arg).__name__}"


def _devices_differ(op: OpDefinition, args: tuple[Any, ...]) -> NoReturn:
    lists = [arg if isinstance(arg, list | tuple) else [arg] for arg in args]
    places = {str(one.device) for arg in lists for one in arg if isinstance(one, Tensor)}
    raise InputError(f"{op.name} got tensors on {' and '.join(sorted(places))}: move them to one device")


def _not_strided(op: OpDefinition, place: int, arg: Tensor) -> NoReturn:
    name = op.arguments[place].name
    raise InputError(f"{op.name}: {name} must be a dense tensor, not one of layout {arg.layout}: call to_dense()")


def shape(op: str, name: str, tensor: Tensor | None, expected: tuple[int, ...]) -> None:
    if tensor is not None and tensor.shape != expected:
        raise InputError(f"{op}: {name} must have the shape {tuple(expected)}, not {tuple(tensor.shape)}")


def dtype(op: str, name: str, tensor: Tensor | None, expected: torch.dtype) -> None:
    if tensor is not None and tensor.dtype != expected:
        raise InputError(f"{op}: {name} must be {_short(expected)}, not {tensor.dtype}")


def floating(op: str, name: str, tensor: Tensor | None) -> None:
    if tensor is not None and tensor.dtype not in FLOATS:
        raise InputError(f"{op}: {name} must be {_FLOATS_TEXT}, not {tensor.dtype}")


def floating_dtype(op: str, name: str, given: torch.dtype | None) -> None:
    if given is not None and given not in FLOATS:
        raise InputError(f"{op}: {name} must be {_FLOATS_TEXT}, not {given}")


def bits(op: str, name: str, given: int) -> None:
    if not LEAST_BITS <= given <= MOST_BITS:
        raise InputError(f"{op}: {name} must be from {LEAST_BITS} to {MOST_BITS}, not {given}")


def one_value(op: str, name: str, scale: Tensor | None) -> None:
    floating(op, name, scale)
    if scale is not None and scale.numel() != 1:
        raise InputError(f"{op}: {name} must be one value, not {scale.numel()}")


def rows(op: str, name: str, tensor: Tensor) -> None:
    if tensor.dim() == 0:
        raise InputError(f"{op}: {name} must have at least one dimension, whose entries are a row, and is a scalar")


def matrix(op: str, x: Tensor, weight: Tensor) -> None:
    """x [..., K] and weight [N, K]."""
    if weight.dim() != 2 or x.dim() < 1 or x.shape[-1] != weight.shape[1]:
        raise InputError(
            f"{op}: an input of shape {tuple(x.shape)} does not fit a weight of shape {tuple(weight.shape)}: "
            "the last dimension of the one must be in_features, the second of the other"
        )


def same_rows(op: str, grad: Tensor, x: Tensor, outputs: int) -> None:
    """grad [..., N] of an output whose input was x [..., K]."""
    shape(op, "grad", grad, (*x.shape[:-1], outputs))


def choice(op: str, name: str, given: str, choices: Collection[str]) -> None:
    if given not in choices:
        raise InputError(f"{op}: unknown {name} {given!r}: use {', '.join(choices)}")


def needs(op: str, given: Sequence[bool], wanted: str) -> None:
    """wanted: what the entries are for, by name."""
    count = len(wanted.split(", "))
    if len(given) != count:
        raise InputError(f"{op}: needs must be {count} bools (of {wanted}), not {len(given)}")


def mask(op: str, given: Tensor | None, weight: Tensor) -> None:
    """mask: bool, of the weight's shape."""
    if given is not None:
        shape(op, "mask", given, weight.shape)
        dtype(op, "mask", given, torch.bool)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
