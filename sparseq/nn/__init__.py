"""Layers: drop-in replacements that train quantized and pruned, their packed forms, and the swap between them."""

from .calibration import calibrate
from .check import check_finite, find_nonfinite
from .convert import convert
from .embedding import QuantEmbedding
from .layers import LAYERS, named_layers
from .linear import QuantSparseLinear
from .masking import MaskedWeight, WeightCounts
from .packed import Packed
from .packed_embedding import PackedEmbedding
from .packed_linear import PackedLinear, multiply_as_stored
from .packing import pack
from .prunable import prunable

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
