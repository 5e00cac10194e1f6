"""Layers: drop-in replacements that train quantized and pruned, their packed forms, and the swap between them."""

from .check import check_finite, find_nonfinite
from .convert import LAYERS, calibrate, convert, named_layers, pack, prunable
from .embedding import QuantEmbedding
from .linear import QuantSparseLinear
from .masking import MaskedWeight, WeightCounts
from .packed import Packed, PackedEmbedding
from .packed_linear import PackedLinear, multiply_as_stored

__all__ = [
    "LAYERS",
    "MaskedWeight",
    "Packed",
    "PackedEmbedding",
    "PackedLinear",
    "QuantEmbedding",
    "QuantSparseLinear",
    "WeightCounts",
    "calibrate",
    "check_finite",
    "convert",
    "find_nonfinite",
    "multiply_as_stored",
    "named_layers",
    "pack",
    "prunable",
]
