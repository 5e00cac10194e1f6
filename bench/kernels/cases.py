"""What a kernel benchmark is made of: the sizes of the six BERTs, cases, and their inputs, peers and checks."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.clock import Call
from bench.packages import Libraries
from bench.roofline import Work
from bench.target import Target
from sparseq import InputError
from sparseq.models import SIZES

OURS = "sparseq"
# Numbers of rows by whether it is a GPU, in the order in which they are timed. Time on a GPU may run out: what matters
# most comes first.
ROWS = {False: (1, 16, 128, 1024), True: (8192, 1024, 128, 16, 1)}
FIRST_SIZES = ("large", "base")
# A CPU is slower, and its sizes fewer: these networks' layers, of at most so many multiplications.
CPU_SIZES, CPU_MOST_MULTIPLICATIONS = ("mini", "base"), 2**28
# Of the first shapes, one each. On a GPU with enough rows for every peer, and without.
SMALLEST_ROWS = {False: (1,), True: (32, 1)}
Shape = tuple[int, ...]
Variant = Mapping[str, Any]


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


@dataclass(frozen=True)
class Case:
    """One measurement.

    described: size, layer, M and step, as the result files have them. make: a set of inputs for each call, the
    libraries by the name of their candidate. work: what it must do at least, for the roofline; None where that is not
    known. memory: whether peak memory is of interest. inference: whether it runs under `torch.inference_mode`.
    """

    described: Mapping[str, Any]
    make: Callable[[Libraries], Trial]
    work: Work | None = None
    memory: bool = False
    inference: bool = True

    def mode(self) -> AbstractContextManager[Any]:
        return torch.inference_mode() if self.inference else nullcontext()

    def __str__(self) -> str:
        named = {"M": "M {}", "sparsity": ""}
        parts = [named.get(key, "{}").format(value) for key, value in self.described.items()]
        return ", ".join(filter(None, parts))


# What pytest's fixture of that name is: checks, times and records a case.
Compare = Callable[[Case], None]


def _nowhere_missing(target: Target) -> None:
    return None


def _always(target: Target, shape: Shape) -> bool:
    return True


def _one_variant(target: Target) -> Sequence[Variant]:
    return ({},)


@dataclass(frozen=True)
class Benchmark:
    """An op's benchmark: one definition for pytest and for `python -m bench run`.

    op: its name. text: what is compared, in a line. dims: the names of a shape's numbers, M (rows) first where there is
    one. sizes: the shapes of the networks' layers (outputs, inputs), or their widths. build: makes the Case of (target,
    *shape, **variant). variants: the other arguments of `build`, by target. timed: whether a shape is timed by default.
    why_not: why nothing runs on a target. all_sizes: whether a CPU times every network's layers, too.
    takes_dtype: whether its inputs come in the target's dtype; else in fp32.
    """

    op: str
    text: str
    dims: tuple[str, ...]
    sizes: Mapping[Any, list[str]]
    build: Callable[..., Case]
    variants: Callable[[Target], Sequence[Variant]] = _one_variant
    timed: Callable[[Target, Shape], bool] = _always
    why_not: Callable[[Target], str | None] = _nowhere_missing
    all_sizes: bool = False
    takes_dtype: bool = True

    def cases(self, target: Target, shapes: Iterable[Shape] | None = None) -> list[Case]:
        """The cases of these shapes; by default those of the networks' layers. InputError where none runs there."""
        if (reason := self.why_not(target)) is not None:
            raise InputError(f"{self.op} is not timed on {target.kind}: {reason}")
        variants = self.variants(target)[: 1 if target.smallest and not target.gpu else None]
        chosen = self.shapes(target) if shapes is None else list(shapes)
        return [self.build(target, *shape, **variant) for shape in chosen for variant in variants]

    def shapes(self, target: Target) -> list[Shape]:
        """The default shapes, in the order in which they are timed."""
        sizes, few = self.sizes, not (target.gpu or target.smallest or self.all_sizes)
        if few:
            sizes = {shape: names for shape, names in sizes.items() if not set(CPU_SIZES).isdisjoint(names)}
        found = with_rows(sizes, target) if "M" in self.dims else ordered(sizes, target)
        if few:
            found = [case for case in found if _affordable(case)]
        return [shape for shape in map(_shape, found) if target.smallest or self.timed(target, shape)]

    @property
    def form(self) -> str:
        """How a shape is written, as in "MxKxN"."""
        return "x".join(self.dims)


def _shape(found: Any) -> Shape:
    """(M, K, N) of (outputs, inputs, M); (M, K) of (width, M); (K,) of a width."""
    return tuple(reversed(found)) if isinstance(found, tuple) else (found,)


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
    return list(reversed(shapes)) if target.gpu else list(shapes)


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


def _affordable(case: Any) -> bool:
    """Whether a CPU's case (outputs, inputs, M) is small enough; what is no product is."""
    return not isinstance(case, tuple) or len(case) < 3 or math.prod(case) <= CPU_MOST_MULTIPLICATIONS


def layer_case(outputs: int, inputs: int, M: int, step: str) -> dict[str, Any]:
    return _described(LAYERS.get((outputs, inputs)), f"{inputs} -> {outputs}", step, M=M)


def width_case(width: int, M: int, step: str) -> dict[str, Any]:
    return _described(WIDTHS.get(width), str(width), step, M=M)


def hidden_case(hidden: int, layer: str, step: str, **more: Any) -> dict[str, Any]:
    return _described(HIDDEN.get(hidden), layer, step, **more)


def _described(sizes: list[str] | None, layer: str, step: str, **more: Any) -> dict[str, Any]:
    """A case's description; its size is empty where no network has such a layer."""
    return {"size": ", ".join(sizes or ()), "layer": layer, **more, "step": step}
