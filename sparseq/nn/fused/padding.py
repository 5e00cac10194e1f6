"""Leaving padding out: the rows of hidden states that are computed, and their places in the batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Of all positions, the largest part that may be real for gathering them to pay. Gathering and scattering move 4 H
# floats a token and layer, products take 12 H^2 operations. Measured at H = 384, in batches of 8 x 32 and 8 x 128:
# even with 5 % of padding, 4 to 7 % faster with 9 %.
MOST_REAL = 0.9


@dataclass(frozen=True)
class Padding:
    """rows: [T], the flat positions in [B, L] that are computed. places: [T], the same positions in [B, columns].

    columns: the length of the longest sequence, which is as far as attention looks.
    """

    batch: int
    length: int
    columns: int
    rows: Tensor
    places: Tensor

    def gather(self, hidden: Tensor) -> Tensor:
        """[B, L, H] -> [T, H]."""
        return hidden.reshape(self.batch * self.length, -1).index_select(0, self.rows)

    def spread(self, rows: Tensor) -> Tensor:
        """[T, C] -> [B, columns, C], zeros where nothing is computed."""
        return self._scatter(rows, self.columns, self.places)

    def collect(self, attended: Tensor) -> Tensor:
        """[B, columns, C] -> [T, C]."""
        return attended.reshape(self.batch * self.columns, -1).index_select(0, self.places)

    def restore(self, rows: Tensor) -> Tensor:
        """[T, H] -> [B, L, H], zeros where nothing is computed."""
        return self._scatter(rows, self.length, self.rows)

    def _scatter(self, rows: Tensor, columns: int, places: Tensor) -> Tensor:
        full = rows.new_zeros(self.batch * columns, rows.shape[1])
        return full.index_copy_(0, places, rows).view(self.batch, columns, -1)


def padding_of(real: Tensor) -> Padding | None:
    """What to leave out, for a mask [B, L] of bools that is True at real tokens; None where that would not pay.

    A first position is computed even where it is padding, on the left, for a head may read it; and so is all of a
    sequence that has no real token. Reads the mask's values, for which a GPU would have to be waited for.
    """
    computed = real | ~real.any(1, keepdim=True)
    computed[:, 0] = True
    rows = computed.flatten().nonzero().flatten()
    batch, length = real.shape
    if len(rows) > MOST_REAL * batch * length:
        return None
    column = rows % length
    columns = int(column.max()) + 1
    places = rows if columns == length else torch.div(rows, length, rounding_mode="floor") * columns + column
    return Padding(batch, length, columns, rows, places)
