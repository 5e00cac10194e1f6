"""Logarithmic axes with plain numbers, at any range."""

import math
from collections.abc import Sequence
from typing import Any

_STEPS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 2.0, 3.0, 5.0, 7.0),
    (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0),
    tuple(i / 10 for i in range(10, 100)),
)
FEWEST, MOST = 3, 8


def log_ticks(low: float, high: float) -> list[float]:
    """Two to `MOST` round numbers from low to high, both above zero; these two if there are no others."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    best: list[float] = []
    for steps in _STEPS:
        # By decimal text, so that 3e-1 is not 0.30000000000000004.
        ticks = [float(f"{step:g}e{decade}") for decade in decades for step in steps]
        found = [tick for tick in ticks if low <= tick <= high]
        if len(found) > MOST:
            break
        best = found
        if len(found) > FEWEST + 1:
            break
    return best if len(best) > 1 else sorted({low, high})


def log_axis(panel: Any, values: Sequence[float], *, room: float = 1.25) -> None:
    """Makes the panel's x axis logarithmic, around the values, all above zero, with plain numbers at its ticks."""
    low, high = min(values) / room, max(values) * room
    ticks = log_ticks(low, high)
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    panel.set_xticks(ticks, [f"{tick:.3g}" if tick < 1000 else f"{tick:,.0f}" for tick in ticks])
    panel.minorticks_off()
