"""`WeightFormat`: what a storage format for weights has to define, and the limits that all formats share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..numerics import qmax
from ..untrusted import pair

FLOAT_BITS = 32
"""`bits` of a weight that is not quantized: its values are floats, of whichever dtype."""

MOST_ROWS, MOST_WEIGHTS = 2**31 - 1, 2**40
"""Limits of one side and of a whole matrix: no memory holds more, and products with larger sizes overflow."""


class TensorSpec(NamedTuple):
    """Shape and dtype of a stored tensor. dtypes: those that are allowed; the first is the one that is written now."""

    shape: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]

    @property
    def dtype(self) -> torch.dtype:
        return self.dtypes[0]


class Operand(NamedTuple):
    """A tensor that an op takes. stored: the name of the stored tensor of which it is a view; None if it was derived
    from stored ones, and needs memory of its own."""

    tensor: Tensor
    stored: str | None = None


@dataclass(frozen=True)
class Operands:
    """op: the function that multiplies by the stored weight, such as `bitmask_int8_linear`. tensors: its arguments
    between x and the weight's scale."""

    op: Callable[..., Tensor]
    tensors: tuple[Operand, ...]


class WeightFormat(ABC):
    """A weight matrix [N, K] as it is stored for inference: the values that are kept, and which those are.

    Values are integers of `bits` bits (4: two to a byte; 8: int8; 16: int16), or floats for `FLOAT_BITS`. Scales and
    biases belong to the layer. `from_dense` and `to_dense` are exact inverses for any matrix whose dropped weights are
    zero.

    A format is a frozen dataclass that derives from this class and is registered by `formats.register`. It defines the
    class variables and the abstract methods below. A format that an op can multiply by directly defines `operands`,
    too; other formats are expanded to a dense matrix.
    """

    name: ClassVar[str]
    """The format's name, in files and as the argument `format` of `pack`."""
    held_bits: ClassVar[tuple[int, ...]] = (4, 8, 16, FLOAT_BITS)
    """Which `bits` the format can hold."""
    is_sparse: ClassVar[bool] = True
    """Whether the format saves memory only where a mask drops weights; `smallest` tries it only with a mask."""
    layout_fields: ClassVar[tuple[str, ...]]
    """Attributes that are part of the layout beside the format's name, `shape` and `bits`."""
    tensor_names: ClassVar[tuple[str, ...]]
    """Attributes that hold the stored tensors; the first is "values"."""

    values: Tensor
    shape: tuple[int, int]
    bits: int

    @classmethod
    def why_not(cls, bits: int, mask: Tensor | None, shape: tuple[int, int], block: tuple[int, int]) -> str | None:
        """Why the format cannot hold a weight, as the rest of a sentence ("holds weights of 8 bits"); None if it can.

        mask: bool [N, K], None if everything is kept. shape: (N, K). block: (R, C), the mask's block pattern; (1, 1) if
        it has none.
        """
        if bits not in cls.held_bits:
            return f"holds weights of {' or '.join(map(str, cls.held_bits))} bits"
        return cls._why_not(mask, shape, block)

    @classmethod
    def _why_not(cls, mask: Tensor | None, shape: tuple[int, int], block: tuple[int, int]) -> str | None:
        """As `why_not`, for the number of bits that was checked already."""
        return None

    @classmethod
    def from_dense(
        cls, values: Tensor, bits: int, mask: Tensor | None = None, block: tuple[int, int] = (1, 1)
    ) -> "WeightFormat":
        """Stores a dense matrix.

        values: [N, K], int8 for 4 and 8 bits, int16 for 16, floats for `FLOAT_BITS`; zero where `mask` is False.
        mask: bool [N, K], which weights are kept; None for all. block: the mask's block pattern. Raises InputError
        where the format cannot hold such a weight.
        """
        shape = (values.shape[0], values.shape[1])
        if (why := cls.why_not(bits, mask, shape, block)) is not None:
            raise InputError(f"a {cls.name} weight {why}")
        return cls._from_dense(values, bits, mask, block)

    @classmethod
    @abstractmethod
    def _from_dense(cls, values: Tensor, bits: int, mask: Tensor | None, block: tuple[int, int]) -> "WeightFormat":
        """As `from_dense`, for a weight that the format can hold."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, layout: dict[str, Any], tensors: Mapping[str, Tensor]) -> "WeightFormat":
        """The weight that `layout` describes, around its stored tensors. The layout must have been checked."""

    @classmethod
    @abstractmethod
    def check_layout(cls, layout: dict[str, Any], shape: tuple[int, int], where: str) -> None:
        """Raises InputError, beginning with `where`, unless the values of `layout_fields`, as read from a file, are
        right for a matrix of this shape. Names, bits and shape were checked already. Allocates nothing."""

    @classmethod
    @abstractmethod
    def tensor_specs(cls, layout: dict[str, Any], dtype: torch.dtype) -> dict[str, TensorSpec]:
        """The stored tensors, by name, of a weight with this layout. dtype: that of the values where they are not
        packed, as of `values_dtype`."""

    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by name."""
        return {name: getattr(self, name) for name in self.tensor_names}

    def layout(self) -> dict[str, Any]:
        """What is written beside the tensors: a dict, as JSON, from which their shapes and dtypes follow."""
        own = {name: getattr(self, name) for name in self.layout_fields}
        own = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
        return {"format": self.name, "shape": list(self.shape), "bits": self.bits, **own}

    @property
    def is_dense(self) -> bool:
        """Whether `values` are the dense matrix itself, so that arithmetic needs no expanded copy."""
        return False

    @abstractmethod
    def to_dense(self) -> Tensor:
        """[N, K], int8, int16 or floats; zeros where weights were dropped."""

    @abstractmethod
    def kept(self) -> int:
        """How many weights are kept."""

    @abstractmethod
    def validate(self) -> None:
        """Raises InputError unless the tensors' contents are consistent. Their shapes and dtypes are right already."""

    def operands(self) -> Operands | None:
        """The op that multiplies by this weight as it is stored; None if the weight must be expanded."""
        return None


def values_dtype(bits: int, float_dtype: torch.dtype) -> torch.dtype:
    """The dtype of stored values: uint8, two to a byte, for 4 bits; int8; int16; `float_dtype` for `FLOAT_BITS`."""
    return {4: torch.uint8, 8: torch.int8, 16: torch.int16, FLOAT_BITS: float_dtype}[bits]


def stored_count(count: int, bits: int) -> int:
    """Entries of a vector that stores `count` values: half as many for 4 bits, rounded up."""
    return -(-count // 2) if bits == 4 else count


def check_shape(shape: object, where: str) -> tuple[int, int]:
    """(rows, columns) of a matrix. InputError unless it is a list of two sizes that memory could hold."""
    rows, columns = pair(shape, 0, MOST_ROWS, where)
    if rows * columns > MOST_WEIGHTS:
        raise InputError(f"{where} is {rows} x {columns}, and a weight has at most {MOST_WEIGHTS} values")
    return rows, columns


def check_range(weight: WeightFormat) -> None:
    """Raises InputError for a value below -qmax, which no quantizer gives: the range is symmetric."""
    values, bits = weight.values, weight.bits
    if bits == FLOAT_BITS:
        return
    lowest = -qmax(bits) - 1
    parts = (values & 15, values >> 4) if bits == 4 else (values,)
    if count := sum(int((part == (lowest & 15 if bits == 4 else lowest)).sum()) for part in parts):
        raise InputError(
            f"a {weight.name} weight is inconsistent: {count} of its values are {lowest}, and {bits} bits hold "
            f"{lowest + 1} to {qmax(bits)}"
        )


def check_kept(weight: WeightFormat, values: Tensor) -> None:
    """Raises InputError where more of the weight's `values` are other than zero than it keeps."""
    if (found := int(values.count_nonzero())) > weight.kept():
        raise InputError(
            f"a {weight.name} weight is inconsistent: {found} of its values are not zero, and it is said to keep "
            f"{weight.kept()}"
        )
