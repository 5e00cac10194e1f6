"""The values of index tensors, by which native code and kernels address memory. When they are looked at: see the
package."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, InputIndexError
from ..formats import SemiStructuredWeight
from ..numerics import chunk_offsets, unpack_mask
from ..tiles import NAMES, TileLists


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


def _block_sparse(op: str, columns: int, values: Tensor, block_columns: Tensor, offsets: Tensor, order: Tensor) -> None:
    blocks, width = len(values), columns // values.shape[2]
    lengths = offsets.diff()
    if int(offsets[0]) or int(offsets[-1]) != blocks or (lengths < 0).any():
        raise InputError(f"{op}: offsets must rise from 0 to {blocks}, the number of blocks")
    if blocks and (int(block_columns.min()) < 0 or int(block_columns.max()) >= width):
        raise InputError(f"{op}: block_columns must be in [0, {width}), of a weight with {columns} columns")
    rows = torch.repeat_interleave(torch.arange(len(lengths), dtype=torch.int64, device=values.device), lengths.long())
    if ((rows * width + block_columns).diff() <= 0).any():
        raise InputError(f"{op}: block_columns must rise within each row of blocks, no column twice")
    if not torch.equal(order.long().sort().values, torch.arange(len(order), dtype=torch.int64, device=order.device)):
        raise InputError(f"{op}: order must hold each of {len(order)} rows of blocks once")


def _bitmask(op: str, columns: int, values: Tensor, bits: Tensor, offsets: Tensor) -> None:
    flags = unpack_mask(bits, bits.shape[1] * 8)
    kept = flags[:, :columns]
    count = int(kept.sum())
    if count != len(values) or flags[:, columns:].any():
        raise InputError(
            f"{op}: bits mark {count} weights of {columns} columns and {int(flags.sum()) - count} beyond them, where "
            f"{len(values)} values are stored"
        )
    if not torch.equal(offsets, chunk_offsets(kept)):
        raise InputError(f"{op}: offsets are not where the values of each chunk of columns begin, by bits")


def _semi_structured(op: str, columns: int, values: Tensor, indices: Tensor) -> None:
    try:
        SemiStructuredWeight(values, indices, (values.shape[0], columns), values.numel()).check_indices()
    except InputError as error:
        raise InputError(f"{op}: {error}") from None


_STORED: dict[str, Callable[..., None]] = {
    "block_sparse": _block_sparse,
    "bitmask": _bitmask,
    "semi_structured": _semi_structured,
}


def _product(op: str, format: str, count: int, x: Tensor, *args: Any) -> None:
    _STORED[format](op, x.shape[-1], *args[:count])


def _backward(grad: Tensor, x: Tensor | None, stored: Sequence[Tensor], format: str, *rest: Any) -> None:
    if format in _STORED:
        _STORED[format]("int8_linear_backward", rest[4], *stored)


def _tiles(op: str, mask_place: int, *args: Any) -> None:
    """Lists that are not this mask's would leave out what it keeps."""
    tiles = args[-1]
    if tiles is None:
        return
    for name, given, expected in zip(NAMES, tiles, TileLists.from_mask(args[mask_place]).tensors(), strict=True):
        if not torch.equal(given, expected):
            raise InputError(f"{op}: the tiles' {name} are not this mask's: make TileLists of it")


CONTENTS: dict[str, Callable[..., None]] = {
    "int8_embedding": embedding_indices,
    "block_sparse_int8_linear": functools.partial(_product, "block_sparse_int8_linear", "block_sparse", 4),
    "bitmask_int8_linear": functools.partial(_product, "bitmask_int8_linear", "bitmask", 3),
    "semi_structured_int8_linear": functools.partial(_product, "semi_structured_int8_linear", "semi_structured", 2),
    "int8_linear_backward": _backward,
    "qat_linear": functools.partial(_tiles, "qat_linear", 3),
    "qat_linear_backward": functools.partial(_tiles, "qat_linear_backward", 3),
    "masked_linear": functools.partial(_tiles, "masked_linear", 2),
    "masked_linear_backward": functools.partial(_tiles, "masked_linear_backward", 3),
}
