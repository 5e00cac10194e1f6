"""How weight matrices are stored for inference. A format is one module here, one class registered by its name.

To add a format, write a `WeightFormat` in a module of its own, decorate it with `register`, and import it below.
"""

# Of formats that store a weight in equally few bytes, the first one here is taken.
from .dense import DenseWeight  # isort: skip
from .semi_structured import SemiStructuredWeight  # isort: skip
from .bitmap import BitmapWeight, BitmaskWeight, BlockSparseWeight  # isort: skip
from .protocol import (
    FLOAT_BITS,
    MOST_ROWS,
    MOST_WEIGHTS,
    Operand,
    Operands,
    TensorSpec,
    WeightFormat,
    check_shape,
    values_dtype,
)
from .registry import (
    check_layout,
    empty_weight,
    format_named,
    format_names,
    register,
    smallest,
    stored_bytes,
    tensor_specs,
    unregister,
    weight_of,
)

__all__ = [
    "FLOAT_BITS",
    "MOST_ROWS",
    "MOST_WEIGHTS",
    "BitmapWeight",
    "BitmaskWeight",
    "BlockSparseWeight",
    "DenseWeight",
    "Operand",
    "Operands",
    "SemiStructuredWeight",
    "TensorSpec",
    "WeightFormat",
    "check_layout",
    "check_shape",
    "empty_weight",
    "format_named",
    "format_names",
    "register",
    "smallest",
    "stored_bytes",
    "tensor_specs",
    "unregister",
    "values_dtype",
    "weight_of",
]
