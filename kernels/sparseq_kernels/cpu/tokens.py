"""The tokens of a batch that are computed: those that an attention mask keeps."""

import torch
from torch import Tensor

from . import native

# A mask's dtypes that native code reads as they are.
_MASKS = (torch.int64, torch.bool, torch.uint8, torch.int8)
_BYTES = 8  # of an int64


class Tokens:
    """Tokens of a batch [batch, length], sequence by sequence; `count` of them. `of` makes it."""

    __slots__ = ("_room", "batch", "count", "length")

    def __init__(self, batch: int, length: int, room: Tensor, count: int) -> None:
        self.batch, self.length, self.count = batch, length, count
        # int64: the tokens before each sequence, and all, [batch + 1]; their places, and room, [batch * length] each.
        self._room = room

    @classmethod
    def of(cls, mask: Tensor | None, batch: int, length: int) -> "Tokens | None":
        """Those that the mask [batch, length] keeps, where it is not zero; all without a mask. None where a sequence
        begins with a token that it does not keep."""
        if mask is not None and not (mask.dtype in _MASKS and mask.is_cpu and mask.is_contiguous()):
            mask = mask.to(native.CPU, torch.bool).contiguous()
        room = torch.empty(batch + 1 + 2 * batch * length, dtype=torch.int64, device=native.CPU)
        at = room.data_ptr()
        given = (None, 0) if mask is None else (mask.data_ptr(), mask.element_size())
        count = native.library().sparseq_list_tokens(*given, batch, length, at, at + _BYTES * (batch + 1))
        return None if count < 0 else cls(batch, length, room, count)

    @property
    def starts_at(self) -> int:
        """The address of int64 [batch + 1]: the number of tokens before each sequence, and of all."""
        return self._room.data_ptr()

    @property
    def places_at(self) -> int:
        """The address of int64 [count]: each token's place in the batch."""
        return self._room.data_ptr() + _BYTES * (self.batch + 1)

    @property
    def numbers_at(self) -> int:
        """The address of int64 [batch * length]: room that one call at a time may use."""
        return self.places_at + _BYTES * self.batch * self.length

    @property
    def is_all(self) -> bool:
        """Whether they are all of the batch."""
        return self.count == self.batch * self.length

    def gather(self, x: Tensor) -> Tensor:
        """[batch, length, H] -> [count, H], in memory of its own."""
        return x.reshape(-1, x.shape[-1]).index_select(0, self._room[self.batch + 1 : self.batch + 1 + self.count])

    def spread(self, x: Tensor, to: Tensor | None = None) -> Tensor:
        """fp32 [count, H], contiguous -> [batch, length, H], zeros at other places.

        to: fp32, contiguous, of batch * length * H elements: gets the result. x may be at its beginning.
        """
        features = x.shape[-1]
        shape = (self.batch, self.length, features)
        if to is None:
            to = x.new_empty(shape)
        places = self.batch * self.length
        native.library().sparseq_spread(x.data_ptr(), self.places_at, self.count, places, features, to.data_ptr())
        return to.view(shape)
