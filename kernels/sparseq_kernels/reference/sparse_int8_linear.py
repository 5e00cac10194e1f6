"""Earlier names of the sparse int8 products and their bit packing, for modules that still use them."""

from ..numerics import CHUNK, chunk_offsets, from_bitmask, from_blocks, from_pairs
from .bitmask_int8_linear import bitmask_int8_linear
from .block_sparse_int8_linear import block_sparse_int8_linear
from .semi_structured_int8_linear import semi_structured_int8_linear

__all__ = [
    "CHUNK",
    "bitmask_int8_linear",
    "block_sparse_int8_linear",
    "chunk_offsets",
    "from_bitmask",
    "from_blocks",
    "from_pairs",
    "semi_structured_int8_linear",
]
