"""Layers: drop-in replacements that train quantized and pruned, their packed forms, and the swap between them."""

from .calibration import calibrate, share_static_scales
from .convert import convert
from .dequantize import dequantize
from .embedding import QuantEmbedding
from .finite import check_finite, checked_tensors, find_nonfinite, is_finite
from .fused import FusedWay, fused_reason, fused_way, use_fused_encoder
from .groups import parameter_groups
from .layers import LAYERS, named_layers
from .least_error import fit_weight_scales, least_error_scale
from .linear import RENAMED_STATE, QuantSparseLinear
from .masking import MaskedWeight, WeightCounts
from .pack import pack
from .packed import Packed
from .packed_embedding import PackedEmbedding
from .packed_linear import PackedLinear, multiply_as_stored, use_sparse_kernels
from .prunable import prunable
from .refreshing import refresh
from .smoothing import smooth

__all__ = [
    "LAYERS",
    "RENAMED_STATE",
    "FusedWay",
    "MaskedWeight",
    "Packed",
    "PackedEmbedding",
    "PackedLinear",
    "QuantEmbedding",
    "QuantSparseLinear",
    "WeightCounts",
    "calibrate",
    "check_finite",
    "checked_tensors",
    "convert",
    "dequantize",
    "find_nonfinite",
    "fit_weight_scales",
    "fused_reason",
    "fused_way",
    "is_finite",
    "least_error_scale",
    "multiply_as_stored",
    "named_layers",
    "pack",
    "parameter_groups",
    "prunable",
    "refresh",
    "share_static_scales",
    "smooth",
    "use_fused_encoder",
    "use_sparse_kernels",
]
