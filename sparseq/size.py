"""A model's size: parameters, nonzeros, bytes as the paper counts them, and bytes as `sparseq.save` stores them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from sparseq import checkpoint
from sparseq.nn import LAYERS, Packed, named_layers
from sparseq.nn.unwrap import plain_modules, plain_state
from sparseq.terminal import shown
from sparseq_kernels.formats import FLOAT_BITS

__all__ = ["LayerSize", "SizeReport", "paper_bytes", "size_report"]

HEADER_ROW = "(file header)"
TABLE_ROWS = 40
LONGEST_NAME = 100


def paper_bytes(parameters: int, prunable: int = 0, sparsity: float = 0.0, bits: int = FLOAT_BITS) -> int:
    """The size as the paper counts it (Movva et al. 2022): 4 bytes per kept parameter, times bits/32.

    Masks and scales are free. Of the `prunable` weights among the `parameters`, the fraction `sparsity` is removed
    (rounded to whole weights). The paper removes 40 % and 60 % of the encoder's linear weights, and counts 8 bits for
    every parameter under QAT.
    """
    kept = parameters - round(prunable * sparsity)
    return -(-kept * 4 * bits // FLOAT_BITS)


@dataclass(frozen=True)
class LayerSize:
    """The size of one module's own tensors. `bits` is the width of its weights in `paper_bytes`."""

    name: str
    kind: str
    parameters: int
    nonzero: int
    bits: int
    paper_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class SizeReport:
    """Sizes of a whole model (the sums over `layers`) and of each of its layers; `str()` gives a table."""

    layers: list[LayerSize]

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def nonzero(self) -> int:
        return sum(layer.nonzero for layer in self.layers)

    @property
    def paper_bytes(self) -> int:
        return sum(layer.paper_bytes for layer in self.layers)

    @property
    def stored_bytes(self) -> int:
        return sum(layer.stored_bytes for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """As JSON: the four totals and "layers", a list of dicts."""
        return {
            "parameters": self.parameters,
            "nonzero": self.nonzero,
            "paper_bytes": self.paper_bytes,
            "stored_bytes": self.stored_bytes,
            "layers": [asdict(layer) for layer in self.layers],
        }

    def __str__(self) -> str:
        folded = _fold(self.layers)
        shown = folded if len(folded) <= TABLE_ROWS else [*folded[: TABLE_ROWS - 1], _rest(folded[TABLE_ROWS - 1 :])]
        rows = [_cells(layer, str(times)) for layer, times in shown]
        total = LayerSize("total", "", self.parameters, self.nonzero, 0, self.paper_bytes, self.stored_bytes)
        return _table(
            ("layer", "kind", "count", "parameters", "nonzero", "kept", "bits", "paper bytes", "stored bytes"),
            [*rows, _cells(total, "")],
        )


def size_report(model: nn.Module) -> SizeReport:
    """Counts the sizes of a plain, training or packed model.

    Tied tensors count once, in the first module that has them. A model on the meta device is accepted if it has no
    masks. The report has:

    - parameters: weights and biases, in whatever form they are stored; a quantizer's scales and masks do not count.
    - nonzero: parameters that no mask removes; a kept weight that happens to be zero counts.
    - paper_bytes: in a quantized model every parameter counts `bits`/8 bytes. Biases and LayerNorm count with the width
      that most quantized weights have. The matrices of layers left unquantized count 4 bytes, and so does everything in
      an unquantized model, whatever its dtype.
    - stored_bytes: the size of `model.safetensors` as `save` writes it, including the header.
    """
    held = checkpoint.contents(model)
    vector_bits = _vector_bits(model)
    state, modules = plain_state(model), dict(plain_modules(model))
    own: dict[str, list[str]] = {}
    for key in state:
        own.setdefault(key.rpartition(".")[0], []).append(key)
    rows = []
    for name, keys in own.items():
        module = modules[name]
        fresh = {key: state[key] for key in keys if key in held.tensors}
        stored = sum(tensor.nbytes for tensor in fresh.values())
        if isinstance(module, tuple(LAYERS.values())):
            row = _sparseq_layer(name, module, fresh, vector_bits, stored)
        else:
            row = _plain_layer(name, module, fresh, vector_bits, stored)
        rows.append(row)
    rows.append(LayerSize(HEADER_ROW, "", 0, 0, FLOAT_BITS, 0, len(held.header())))
    return SizeReport(rows)


def _sparseq_layer(name: str, module: Any, fresh: Mapping[str, Tensor], vector_bits: int, stored: int) -> LayerSize:
    counts = module.weight_counts()
    # A weight tied to that of an earlier layer counts there.
    weight = "values" if isinstance(module, Packed) else "weight"
    own = any(key.rpartition(".")[2] == weight for key in fresh)
    total, kept = (counts.total, counts.kept) if own else (0, 0)
    bias = next((tensor.numel() for key, tensor in fresh.items() if key.rpartition(".")[2] == "bias"), 0)
    size = paper_bytes(kept, bits=counts.bits) + paper_bytes(bias, bits=vector_bits)
    return LayerSize(name, type(module).__name__, total + bias, kept + bias, counts.bits, size, stored)


def _plain_layer(name: str, module: nn.Module, fresh: Mapping[str, Tensor], vector_bits: int, stored: int) -> LayerSize:
    parameters = [tensor for tensor in fresh.values() if isinstance(tensor, nn.Parameter)]
    matrices = sum(tensor.numel() for tensor in parameters if tensor.dim() > 1)
    vectors = sum(tensor.numel() for tensor in parameters if tensor.dim() <= 1)
    bits = FLOAT_BITS if matrices or not vectors else vector_bits
    size = paper_bytes(matrices) + paper_bytes(vectors, bits=vector_bits)
    return LayerSize(name, type(module).__name__, matrices + vectors, matrices + vectors, bits, size, stored)


def _vector_bits(model: nn.Module) -> int:
    """The width that most quantized weights have; 32 if none is quantized."""
    weights: Counter[int] = Counter()
    seen: set[int] = set()
    for _, layer in named_layers(model):
        weight = id(layer.values if isinstance(layer, Packed) else layer.weight)
        if weight not in seen:
            seen.add(weight)
            counts = layer.weight_counts()
            weights[counts.bits] += counts.total
    del weights[FLOAT_BITS]
    return weights.most_common(1)[0][0] if weights else FLOAT_BITS


def _fold(layers: Sequence[LayerSize]) -> list[tuple[LayerSize, int]]:
    """Merges layers that differ only in the number of their block into one row: their sums and their count."""
    groups: dict[tuple[str, str, int], list[LayerSize]] = {}
    for layer in layers:
        name = re.sub(r"(?<![^.])\d+(?=\.)", "*", layer.name)
        groups.setdefault((name, layer.kind, layer.bits), []).append(layer)
    return [
        (_sum(name if len(group) > 1 else group[0].name, kind, bits, group), len(group))
        for (name, kind, bits), group in groups.items()
    ]


def _rest(rows: Sequence[tuple[LayerSize, int]]) -> tuple[LayerSize, int]:
    """One row for the layers that do not fit into the table."""
    return _sum("(others)", "", 0, [layer for layer, _ in rows]), sum(times for _, times in rows)


def _sum(name: str, kind: str, bits: int, group: Sequence[LayerSize]) -> LayerSize:
    return LayerSize(
        name,
        kind,
        sum(layer.parameters for layer in group),
        sum(layer.nonzero for layer in group),
        bits,
        sum(layer.paper_bytes for layer in group),
        sum(layer.stored_bytes for layer in group),
    )


def _cells(layer: LayerSize, times: str) -> tuple[str, ...]:
    if layer.name == HEADER_ROW:
        return (layer.name, "", "", "", "", "", "", "", f"{layer.stored_bytes:,}")
    kept = f"{layer.nonzero / layer.parameters:.1%}" if layer.parameters else ""
    return (
        shown(layer.name, limit=LONGEST_NAME),
        shown(layer.kind, limit=LONGEST_NAME),
        times,
        f"{layer.parameters:,}",
        f"{layer.nonzero:,}",
        kept,
        str(layer.bits) if layer.bits else "",
        f"{layer.paper_bytes:,}",
        f"{layer.stored_bytes:,}",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text: two left-aligned columns, then right-aligned ones; rules under the heading and above the last row."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    rule = "  ".join("-" * width for width in widths)

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), rule, *(line(row) for row in rows[:-1]), rule, line(rows[-1])])
