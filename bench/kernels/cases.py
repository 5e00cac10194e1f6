"""The sizes that kernels are timed at: the layers of the six BERTs, and how many tokens come at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.clock import Call
from bench.target import Target
from sparseq.models import SIZES

OURS = "sparseq"
# In the order in which they are timed. Time on a GPU may run out: what matters most comes first.
ROWS = {False: (1, 16, 128, 1024), True: (8192, 1024, 128, 16, 1)}
FIRST_SIZES = ("large", "base")
# Of the first shapes, one each. On a GPU with enough rows for every peer, and without.
SMALLEST_ROWS = {False: (1,), True: (32, 1)}


@dataclass
class Trial:
    """One set of inputs of a case.

    candidates: what to time by name, OURS among them; the others are peers, to which its ratio is taken. check: given
    those that run here, raises WrongResultError if one is wrong. absent: peers that cannot take this case, and why.
    pairs: ratios to take beside OURS to each peer.
    """

    candidates: dict[str, Call]
    check: Callable[[Mapping[str, Call]], None]
    absent: dict[str, str] = field(default_factory=dict)
    pairs: Sequence[tuple[str, str]] = ()

    def add(self, name: str, call: Call, why_not: str | None = None) -> None:
        """Adds a peer, or why it cannot take this case."""
        if why_not is None:
            self.candidates[name] = call
        else:
            self.absent[name] = why_not


def _by_shape(shapes: Callable[[int, int], tuple[Any, ...]]) -> dict[Any, list[str]]:
    """Shape -> the sizes that have it, of every size's (hidden, intermediate)."""
    found: dict[Any, list[str]] = {}
    for name, spec in SIZES.items():
        for shape in shapes(spec.hidden, spec.intermediate):
            if name not in found.setdefault(shape, []):
                found[shape].append(name)
    return found


# (outputs, inputs) of attention's four layers and the feed-forward's two.
LAYERS = _by_shape(lambda hidden, wide: ((hidden, hidden), (wide, hidden), (hidden, wide)))
WIDTHS = _by_shape(lambda hidden, wide: (hidden, wide))
HIDDEN = _by_shape(lambda hidden, wide: (hidden,))


def first(sizes: Iterable[str]) -> bool:
    """Whether a shape is of the sizes that matter most."""
    return not set(FIRST_SIZES).isdisjoint(sizes)


def ordered(shapes: Mapping[Any, list[str]], target: Target) -> list[Any]:
    """The shapes in the order in which they are timed; the first ones alone for `target.smallest`."""
    if target.smallest:
        return list(shapes)[: len(SMALLEST_ROWS[target.gpu])]
    return list(shapes)[:: -1 if target.gpu else 1]


def with_rows(shapes: Mapping[Any, list[str]], target: Target) -> list[tuple[Any, ...]]:
    """(*shape, M) of every case, in the order in which they are timed."""
    chosen = ordered(shapes, target)
    if target.smallest:
        every = list(zip(chosen, SMALLEST_ROWS[target.gpu], strict=True))
    else:
        every = [(shape, M) for M in ROWS[target.gpu] for shape in chosen]
    if target.gpu:
        every.sort(key=lambda case: not first(shapes[case[0]]))
    return [(*(shape if isinstance(shape, tuple) else (shape,)), M) for shape, M in every]


def layer_case(outputs: int, inputs: int, M: int, step: str) -> dict[str, Any]:
    return {"size": ", ".join(LAYERS[outputs, inputs]), "layer": f"{inputs} -> {outputs}", "M": M, "step": step}


def width_case(width: int, M: int, step: str) -> dict[str, Any]:
    return {"size": ", ".join(WIDTHS[width]), "layer": str(width), "M": M, "step": step}


def hidden_case(hidden: int, layer: str, step: str, **more: Any) -> dict[str, Any]:
    return {"size": ", ".join(HIDDEN[hidden]), "layer": layer, **more, "step": step}
