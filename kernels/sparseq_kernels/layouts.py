"""What is written about a stored weight beside its tensors: a dict, as JSON, from which they can be foretold.

Every layout has "format", "shape" [N, K] and "bits"; "kept_weights" (dense, semi_structured) or "block" [R, C] and
"kept_blocks" (bitmask, block_sparse) say what was kept. The formats' classes are in `formats`.
"""

from typing import Any, NamedTuple

import torch

from .errors import InputError
from .untrusted import fields, integer, one_of, pair

FORMATS = ("dense", "bitmask", "block_sparse", "semi_structured")
FLOAT_BITS = 32
# The bits of a weight that each format holds.
FORMAT_BITS = dict.fromkeys(FORMATS, (4, 8, 16, FLOAT_BITS)) | {"semi_structured": (8,)}
# Of a side and of a whole matrix: beyond these no machine holds the weight, and products with its size overflow.
MOST_ROWS, MOST_WEIGHTS = 2**31 - 1, 2**40


class TensorSpec(NamedTuple):
    """What a stored tensor must be. dtypes: those that are allowed; the first is the one that is written now."""

    shape: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]

    @property
    def dtype(self) -> torch.dtype:
        return self.dtypes[0]


def check_layout(layout: object, where: str) -> None:
    """Raises InputError unless `layout`, as read from a file, describes a weight that one of FORMATS can hold.

    Exact keys and types; numbers in range; blocks that divide the shape; no more kept than there is. Allocates nothing.
    """
    if not isinstance(layout, dict) or "format" not in layout:
        fields(layout, ("format", "shape", "bits"), where)
    name = one_of(layout["format"], FORMATS, f"{where}: format")  # type: ignore[index]
    blocks = name in ("bitmask", "block_sparse")
    kept = ("block", "kept_blocks") if blocks else ("kept_weights",)
    found = fields(layout, ("format", "shape", "bits", *kept), where)
    one_of(found["bits"], FORMAT_BITS[name], f"{where}: bits of a {name} weight")
    rows, columns = check_shape(found["shape"], f"{where}: shape")
    if not blocks:
        if name == "semi_structured" and columns % 4:
            raise InputError(f"{where}: shape has {columns} columns, and a {name} weight needs a multiple of 4")
        most = rows * columns // 2 if name == "semi_structured" else rows * columns
        integer(found["kept_weights"], 0, most, f"{where}: kept_weights")
        return
    r, c = pair(found["block"], 1, MOST_ROWS, f"{where}: block")
    if ((r, c) == (1, 1)) != (name == "bitmask"):
        raise InputError(f"{where}: block is {r} x {c}, and only that of a bitmask weight is 1 x 1")
    if rows % r or columns % c or r * c > MOST_WEIGHTS:
        raise InputError(f"{where}: blocks of {r} x {c} do not divide a weight of {rows} x {columns}")
    integer(found["kept_blocks"], 0, rows * columns // (r * c), f"{where}: kept_blocks")


def check_shape(shape: object, where: str) -> tuple[int, int]:
    """(rows, columns) of a matrix. InputError unless it is a list of two sizes that memory could hold."""
    rows, columns = pair(shape, 0, MOST_ROWS, where)
    if rows * columns > MOST_WEIGHTS:
        raise InputError(f"{where} is {rows} x {columns}, and a weight has at most {MOST_WEIGHTS} values")
    return rows, columns


def tensor_specs(layout: dict[str, Any], float_dtype: torch.dtype) -> dict[str, TensorSpec]:
    """Every tensor that a weight of this layout has, by name. float_dtype: of the values, if they are not quantized.

    The layout must have passed `check_layout`.
    """
    (rows, columns), bits = layout["shape"], layout["bits"]
    values: tuple[int, ...]
    marks: dict[str, tuple[int, ...]] = {}
    if layout["format"] == "semi_structured":
        values, marks = (rows, columns // 2), {"indices": (rows, -(-columns // 8))}
    elif layout["format"] == "dense":
        values = (rows, -(-columns // 2) if bits == 4 else columns)
    else:
        r, c = layout["block"]
        count = layout["kept_blocks"] * r * c
        values, marks = (-(-count // 2) if bits == 4 else count,), {"bitmap": (-(-(rows * columns // (r * c)) // 8),)}
    dtype = {4: torch.uint8, 8: torch.int8, 16: torch.int16, FLOAT_BITS: float_dtype}[bits]
    return {"values": TensorSpec(values, (dtype,))} | {n: TensorSpec(s, (torch.uint8,)) for n, s in marks.items()}
