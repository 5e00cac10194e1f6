"""What `torch.utils.flop_counter.FlopCounterMode` counts: 2 operations a weight and row of x.

Of a weight in a sparse format the stored values count. Masked weights count.
"""

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from .on_import import after_import

COUNTER = "torch.utils.flop_counter"
Shape = Sequence[int]


def product(x: Shape, values: int) -> int:
    """Of x [..., K] times a weight of so many values."""
    return 2 * math.prod(x[:-1]) * values


def linear(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """Of a forward. weight: dense, or the stored values."""
    return product(x, math.prod(weight))


_formulas: dict[Any, Callable[..., int]] = {}


def register_flops(packet: Any, formula: Callable[..., int]) -> None:
    """Registers a formula once torch's counter is imported.

    The counter imports Triton, which importing this package must not do.
    """
    _formulas[packet] = formula
    after_import(COUNTER, _register)


def _register(counter: ModuleType) -> None:
    for packet, formula in _formulas.items():
        if packet not in counter.flop_registry:
            counter.register_flop_formula(packet)(formula)
