"""Registers `torch.ops.sparseq.*`: what each op (`schemas`) computes, on which backend, and its fake version (`fake`).

Arguments are checked before any backend sees them (`checks`), also where shapes are faked. Autograd, autocast and vmap
are in `transforms`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .backends import implementation
from .checks import CHECKS, CONTENTS
from .errors import InputError
from .fake import FAKE
from .schemas import SCHEMAS, complete, names

LIBRARY = torch.library.Library("sparseq", "DEF")


def _runs(op: str) -> Callable[..., Any]:
    check, check_contents = CHECKS[op], CONTENTS.get(op)

    def run(*args: Any) -> Any:
        args = complete(op, args)
        check(*args)
        device = device_of(args)
        if check_contents is not None and device == "cpu":
            check_contents(*args)
        results = _implemented(op, device, args)
        if isinstance(results, Tensor):
            return own_memory(results)
        return _apart(type(results)([own_memory(result) for result in results]))

    return run


def _implemented(op: str, device: str, args: tuple[Any, ...]) -> Any:
    """The backend's results, outside autocast, which would change the precision of torch's products within an op."""
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return implementation(op, device)(*args)
    return implementation(op, device)(*args)


def device_of(args: tuple[Any, ...]) -> str:
    """The type of the device that an op's arguments are on; "cpu" of an empty list of tensors."""
    first = args[0]
    if isinstance(first, list | tuple):
        if not first:
            return "cpu"
        first = first[0]
    device: str = first.device.type
    return device


def own_memory(result: Tensor) -> Tensor:
    """A result as it leaves: contiguous, and to autograd no view, which could not be changed in place.

    Backends return views of memory that they made themselves, such as a product that is reshaped, never of an argument.
    """
    result = result.contiguous()
    return torch.ops.aten._unsafe_view(result, result.shape) if result._is_view() else result


def _apart(results: Any) -> Any:
    """The results, with another empty tensor for each that is there twice."""
    if len({*map(id, results)}) == len(results):
        return results
    seen: set[int] = set()
    kept = []
    for result in results:
        kept.append(torch.empty_like(result) if id(result) in seen else result)
        seen.add(id(result))
    return type(results)(kept)


def _fakes(op: str) -> Callable[..., Any]:
    check, fake, places = CHECKS[op], FAKE[op], names(op)

    def run(*args: Any, **named: Any) -> Any:
        args = complete(op, args)
        if named:
            args = tuple(named.get(name, arg) for name, arg in zip(places, args, strict=True))
        check(*args)
        return fake(*args)

    return run


def _elsewhere(op: str) -> Callable[..., Any]:
    """For what is no dense tensor on a CPU or a GPU, and for lists without a tensor."""

    def run(*args: Any) -> Any:
        if args[0] == []:
            return RUN[op](*args)
        CHECKS[op](*complete(op, args))
        raise InputError(f"{op} runs on dense tensors on a CPU or a GPU: convert what it got to such")

    return run


# Each op without torch's dispatcher before it: on tensors that hold values, and without autograd.
RUN: dict[str, Callable[..., Any]] = {}
for _op, _schema in SCHEMAS.items():
    LIBRARY.define(_op + _schema, tags=(torch.Tag.pt2_compliant_tag,))
    RUN[_op] = _runs(_op)
    for _key in ("CPU", "CUDA"):
        LIBRARY.impl(_op, RUN[_op], _key)
    LIBRARY.impl(_op, _elsewhere(_op), "CompositeExplicitAutograd")
    torch.library.register_fake(f"sparseq::{_op}", _fakes(_op), lib=LIBRARY)
