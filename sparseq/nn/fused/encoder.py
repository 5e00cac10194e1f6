"""The layers of an encoder, in one call of native code where that can be, and otherwise as a composition of ops."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .by_ops import encode_by_ops
from .one_call import encode_in_one_call
from .padding import padding_of
from .weights import EncoderWeights


@dataclass(frozen=True)
class Attention:
    """What queries may look at.

    real: [B, L], True at real tokens; None if all are. bias: what is added to the scores, [1, heads, L, L], or None.
    eager: whether masked scores get the least float added, as by transformers' "eager", or none of the weight, as by
    "sdpa": a sequence without a real token has other results by the one than by the other.
    """

    real: Tensor | None = None
    bias: Tensor | None = None
    eager: bool = False

    def mask(self, hidden: Tensor) -> Tensor | None:
        """For `scaled_dot_product_attention`, broadcastable to [B, heads, L, L]."""
        mask = None if self.real is None else self.real[:, None, None, :]
        if mask is not None and (self.bias is not None or self.eager):
            least = torch.finfo(hidden.dtype).min
            mask = hidden.new_zeros(mask.shape).masked_fill_(~mask, least)
        if self.bias is None:
            return mask
        return self.bias if mask is None else self.bias + mask


def encode(weights: EncoderWeights, hidden: Tensor, attention: Attention, *, every: bool = False) -> list[Tensor]:
    """The output of the last layer, or with `every` what enters the first layer and the output of each one.

    hidden: [B, L, H], in the weights' dtype. Where padding is left out, hidden states are zeros there.
    """
    if attention.bias is None:
        found = encode_in_one_call(weights, hidden, attention.real, every=every)
        if found is not None:
            return found
    mask, padding = attention.mask(hidden), None
    if attention.real is not None and not hidden.is_cuda:
        padding = padding_of(attention.real)
    if padding is not None and mask is not None:
        mask = mask[..., : padding.columns]
        mask = mask[..., : padding.columns, :] if mask.shape[-2] > 1 else mask
    return encode_by_ops(weights, hidden, mask, padding, every=every)
