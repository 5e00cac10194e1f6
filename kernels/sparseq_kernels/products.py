"""`sparse_dispatch` under its earlier names, for modules that still use them."""

from .formats.bitmap import SIDES as BLOCKS
from .sparse_dispatch import LEAST_ROWS, operands
from .sparse_dispatch import is_faster as pays

__all__ = ["BLOCKS", "LEAST_ROWS", "operands", "pays"]
