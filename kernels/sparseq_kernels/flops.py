"""What `torch.utils.flop_counter.FlopCounterMode` counts of the ops: 2 operations for each weight that a product
multiplies by, and row of x. Of a weight as it is stored these are the values that are; masked ones count."""

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch

from .on_import import after_import

COUNTER = "torch.utils.flop_counter"
Shape = Sequence[int]


def _product(x: Shape, values: int) -> int:
    return 2 * math.prod(x[:-1]) * values


def _linear(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """weight: dense, or the values that are stored of it."""
    return _product(x, math.prod(weight))


def _qat_linear_backward(grad: Shape, x: Any, weight: Shape, *rest: Any, **_: Any) -> int:
    needs = rest[8]
    return _product(grad, math.prod(weight)) * (bool(needs[0] or needs[4]) + bool(needs[1] or needs[3]))


def _masked_linear_backward(grad: Shape, x: Shape, weight: Shape, *rest: Any, **_: Any) -> int:
    return _product(grad, math.prod(weight)) * sum(map(bool, rest[2][:2]))


def _int8_linear_backward(grad: Shape, x: Any, stored: Sequence[Shape], *rest: Any, **_: Any) -> int:
    activation, needs = rest[4], rest[7]
    return _product(grad, math.prod(stored[0])) * (bool(needs[0]) + (activation != "none"))


FORMULAS: dict[str, Callable[..., int]] = {
    "qat_linear": _linear,
    "masked_linear": _linear,
    "int8_linear": _linear,
    "block_sparse_int8_linear": _linear,
    "bitmask_int8_linear": _linear,
    "semi_structured_int8_linear": _linear,
    "qat_linear_backward": _qat_linear_backward,
    "masked_linear_backward": _masked_linear_backward,
    "int8_linear_backward": _int8_linear_backward,
}


def register() -> None:
    """Once torch's counter is imported: it imports Triton, which importing this package does not."""
    after_import(COUNTER, _register)


def _register(counter: ModuleType) -> None:
    for op, formula in FORMULAS.items():
        packet = getattr(torch.ops.sparseq, op)
        if packet not in counter.flop_registry:
            counter.register_flop_formula(packet)(formula)
