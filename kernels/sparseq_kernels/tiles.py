"""`block_index` under its earlier names, for modules that still use them."""

from .block_index import BLOCK as TILE
from .block_index import NAMES, layout
from .block_index import BlockIndex as TileLists

__all__ = ["NAMES", "TILE", "TileLists", "layout"]
