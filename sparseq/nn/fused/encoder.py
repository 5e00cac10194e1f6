"""The layers of an encoder, in one call of native code where that can be, and otherwise as a composition of ops."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .by_ops import encode_by_ops
from .embeddings import Entry
from .one_call import encode_in_one_call
from .padding import padding_of
from .weights import EncoderWeights


class Attention(NamedTuple):
    """What queries may look at.

    mask: [B, L], not zero at real tokens; None if all are. bias: from hidden states [1, L, H] what is added to the
    scores, [1, heads, L, L]; None for nothing. eager: whether masked scores get the least float added, as by
    transformers' "eager", or none of the weight, as by "sdpa": a sequence without a real token has other results by
    the one than by the other. bf16: whether native code multiplies in bf16, where it can.
    """

    mask: Tensor | None = None
    bias: Callable[[Tensor], Tensor] | None = None
    eager: bool = False
    bf16: bool = False

    def real(self, hidden: Tensor) -> Tensor | None:
        """[B, L], True at real tokens; None if all are, as far as that is known without waiting for a GPU."""
        real = None if self.mask is None else self.mask.to(hidden.device, torch.bool)
        return None if real is not None and not real.is_cuda and bool(real.all()) else real

    def added(self, hidden: Tensor, real: Tensor | None) -> Tensor | None:
        """For `scaled_dot_product_attention`, broadcastable to [B, heads, L, L]."""
        mask = None if real is None else real[:, None, None, :]
        if mask is not None and (self.bias is not None or self.eager):
            least = torch.finfo(hidden.dtype).min
            mask = hidden.new_zeros(mask.shape).masked_fill_(~mask, least)
        if self.bias is None:
            return mask
        bias = self.bias(hidden[:1])
        return bias if mask is None else bias + mask


def encode(
    weights: EncoderWeights, entry: Entry, attention: Attention, *, native: bool, every: bool = False
) -> list[Tensor]:
    """The output of the last layer, or with `every` what enters the first layer and the output of each one.

    entry: what enters the first layer. native: whether native code computes with these weights. Where padding is left
    out, hidden states are zeros there. UnfitError where the entry does not fit the layers.
    """
    if native and attention.bias is None:
        found = encode_in_one_call(weights, entry, attention.mask, every=every, bf16_attention=attention.bf16)
        if found is not None:
            return found
    hidden = entry.whole()
    real = attention.real(hidden)
    mask, padding = attention.added(hidden, real), None
    if real is not None and not hidden.is_cuda:
        padding = padding_of(real)
    if padding is not None and mask is not None:
        mask = mask[..., : padding.columns]
        mask = mask[..., : padding.columns, :] if mask.shape[-2] > 1 else mask
    return encode_by_ops(weights, hidden, mask, padding, every=every)
