"""Validation of the block index that the ops with a mask take (see `block_index.BlockIndex`)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...block_index import NAMES, BlockIndex, layout
from ...errors import InputError


def validate_block_index(op: str, given: Sequence[Tensor] | None, mask: Tensor | None, weight: Tensor) -> None:
    """Raises InputError unless the tensors have the shapes and dtypes of a block index of this weight's mask."""
    if given is None:
        return
    # Symbolic sizes cannot be looked up in a cache.
    find = layout if all(size.__class__ is int for size in weight.shape) else layout.__wrapped__
    expected = find(*weight.shape)
    if mask is None:
        raise InputError(f"{op}: a block_index belongs to a mask: give the mask, too")
    if len(given) != len(expected):
        raise InputError(
            f"{op}: block_index must be the {len(expected)} tensors of BlockIndex.tensors(), not {len(given)}"
        )
    for tensor, (name, (size, dtype)) in zip(given, expected.items(), strict=True):
        if tensor.shape != size or tensor.dtype != dtype or not tensor.is_contiguous():
            raise InputError(
                f"{op}: for a weight of shape {tuple(weight.shape)} the block index's {name} must be {dtype}, "
                f"contiguous and of shape {size}, not {tensor.dtype} of {tuple(tensor.shape)}: make a BlockIndex "
                "of this weight's mask"
            )


def validate_block_index_values(op: str, given: Sequence[Tensor] | None, mask: Tensor | None) -> None:
    """Raises InputError unless the block index is this mask's. Another one's would leave out kept weights."""
    if given is None or mask is None:
        return
    for name, tensor, expected in zip(NAMES, given, BlockIndex.from_mask(mask).tensors(), strict=True):
        if not torch.equal(tensor, expected):
            raise InputError(f"{op}: the block index's {name} are not this mask's: make a BlockIndex of it")
