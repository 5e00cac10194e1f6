"""A trained weight in the form in which it is stored."""

import torch
from torch import Tensor

from sparseq_kernels import InputError
from sparseq_kernels.formats import (
    BlockBitmapWeight,
    DenseWeight,
    PackedWeight,
    SemiStructuredWeight,
    smallest,
)
from sparseq_kernels.layouts import FLOAT_BITS, FORMATS
from sparseq_kernels.numerics import quantize
from sparseq_kernels.torch_internals import has_values

from .masking import MaskedWeight
from .settings import check_dtype

Stored = tuple[PackedWeight, Tensor | None]


def pack_weight(layer: MaskedWeight, format: str | None) -> Stored:
    """(the layer's weight as stored, its scale fp32 [rows] or None for floats); `format` None takes the smallest.

    The tensors are new: a packed model shares nothing with the one it was made from. Raises InputError for a format
    that cannot hold the weight, for a weight of a dtype such as float8, and for a mask without values.
    """
    check_dtype(layer.weight.dtype, "the layer")
    bits = layer.bits or FLOAT_BITS
    weight, scale = layer.masked_weight().detach().clone(), None
    if layer.bits is not None:
        scale = layer.channel_scale().detach().to(torch.float32, copy=True)
        weight = quantize(weight, scale.unsqueeze(-1), bits)
    if layer.mask is not None and not has_values(layer.mask):
        raise InputError(
            "the layer's mask has no values (it is on the meta device, or faked), and they say how much is stored: "
            "pack the layer once its weights are there"
        )
    block, mask = layer.pattern.block if layer.pattern.kind == "block" else (1, 1), layer.mask
    if format is None:
        return smallest(weight, mask, block, bits), scale
    if format == "dense":
        return DenseWeight.from_dense(weight, bits, mask), scale
    kept = mask if mask is not None else torch.ones_like(weight, dtype=torch.bool)
    if format == "bitmask":
        return BlockBitmapWeight.from_dense(weight, kept, (1, 1), bits), scale
    if format == "block_sparse" and block != (1, 1):
        return BlockBitmapWeight.from_dense(weight, kept, block, bits), scale
    if format == "semi_structured" and bits == 8:
        return SemiStructuredWeight.from_dense(weight, kept), scale
    if format == "semi_structured":
        raise InputError(f"format {format!r} holds weights of 8 bits, and this layer's have {bits}")
    why = "needs a block pattern such as '4x4'" if format == "block_sparse" else f"is not one of {', '.join(FORMATS)}"
    raise InputError(f"format {format!r} {why}, and this layer's pattern is {layer.pattern}")
