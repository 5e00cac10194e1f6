"""The sizes that kernels are timed at: the layers of the six BERTs, and how many tokens come at once."""

from collections.abc import Callable
from typing import Any

import pytest

from bench.common import smallest_asked
from sparseq.models import SIZES

OURS = "sparseq"
ROWS = (1, 16, 128, 1024)[: 1 if smallest_asked() else None]


def _by_shape(shapes: Callable[[int, int], tuple[Any, ...]]) -> dict[Any, list[str]]:
    """Shape -> the sizes that have it, of every size's (hidden, intermediate)."""
    found: dict[Any, list[str]] = {}
    for name, spec in SIZES.items():
        for shape in shapes(spec.hidden, spec.intermediate):
            if name not in found.setdefault(shape, []):
                found[shape].append(name)
    return dict(list(found.items())[: 1 if smallest_asked() else None])


# (outputs, inputs) of attention's four layers and the feed-forward's two.
LAYERS = _by_shape(lambda hidden, wide: ((hidden, hidden), (wide, hidden), (hidden, wide)))
WIDTHS = _by_shape(lambda hidden, wide: (hidden, wide))
HIDDEN = _by_shape(lambda hidden, wide: (hidden,))


def layer_case(outputs: int, inputs: int, M: int, step: str) -> dict[str, Any]:
    return {"size": ", ".join(LAYERS[outputs, inputs]), "layer": f"{inputs} -> {outputs}", "M": M, "step": step}


def width_case(width: int, M: int, step: str) -> dict[str, Any]:
    return {"size": ", ".join(WIDTHS[width]), "layer": str(width), "M": M, "step": step}


over_rows = pytest.mark.parametrize("M", ROWS)
over_layers = pytest.mark.parametrize("outputs,inputs", list(LAYERS))
over_widths = pytest.mark.parametrize("width", list(WIDTHS))
over_hidden = pytest.mark.parametrize("hidden", list(HIDDEN))
