"""The values of index tensors, by which native code and kernels address memory. When they are looked at: see the
package."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..block_index import NAMES, BlockIndex
from ..errors import InputError, InputIndexError
from ..formats import format_named


def embedding_indices(indices: Tensor, weight: Tensor, *_: Any) -> None:
    """As for `nn.Embedding`: an index counts from the beginning."""
    if indices.numel() == 0:
        return
    least, most = (int(end) for end in indices.long().aminmax())
    if least < 0 or most >= weight.shape[0]:
        wrong = least if least < 0 else most
        raise InputIndexError(
            f"int8_embedding: index {wrong} is outside [0, {weight.shape[0]}), the rows of the weight"
        )


def _product(format: str, count: int, x: Tensor, *args: Any) -> None:
    cls = format_named(format)
    cls.validate_operands(f"{format}_int8_linear", x.shape[-1], *args[:count])


def _backward(grad: Tensor, x: Tensor | None, stored: Sequence[Tensor], format: str, *rest: Any) -> None:
    format_named(format).validate_operands("int8_linear_backward", rest[4], *stored)


def _tiles(op: str, mask_place: int, *args: Any) -> None:
    """Lists that are not this mask's would leave out what it keeps."""
    tiles = args[-1]
    if tiles is None:
        return
    for name, given, expected in zip(NAMES, tiles, BlockIndex.from_mask(args[mask_place]).tensors(), strict=True):
        if not torch.equal(given, expected):
            raise InputError(f"{op}: the tiles' {name} are not this mask's: make BlockIndex of it")


CONTENTS: dict[str, Callable[..., None]] = {
    "int8_embedding": embedding_indices,
    "block_sparse_int8_linear": functools.partial(_product, "block_sparse", 4),
    "bitmask_int8_linear": functools.partial(_product, "bitmask", 3),
    "semi_structured_int8_linear": functools.partial(_product, "semi_structured", 2),
    "int8_linear_backward": _backward,
    "qat_linear": functools.partial(_tiles, "qat_linear", 3),
    "qat_linear_backward": functools.partial(_tiles, "qat_linear_backward", 3),
    "masked_linear": functools.partial(_tiles, "masked_linear", 2),
    "masked_linear_backward": functools.partial(_tiles, "masked_linear_backward", 3),
}
